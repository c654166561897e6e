// SPDX-License-Identifier: GPL-2.0
//! The Adam optimiser (Kingma and Ba, 2015) with its moments in the open:
//! candle-nn's keeps them to itself, and a checkpoint without them does not
//! resume exactly.

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Running means of the gradient and of its square.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    /// Of the gradient.
    pub first: Vec<f32>,
    /// Of its square.
    pub second: Vec<f32>,
    /// Steps taken.
    pub steps: u64,
}

impl Adam {
    /// For so many parameters.
    pub fn new(len: usize) -> Self {
        Self {
            first: vec![0.0; len],
            second: vec![0.0; len],
            steps: 0,
        }
    }

    /// Moves the parameters one step against the gradient.
    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32], rate: f32) {
        self.steps += 1;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let bias = |beta: f32| (1.0 - f64::from(beta).powi(steps)) as f32;
        let (bias1, bias2) = (bias(BETA1), bias(BETA2));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((p, g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *m = BETA1 * *m + (1.0 - BETA1) * g;
            *v = BETA2 * *v + (1.0 - BETA2) * g * g;
            *p -= rate * (*m / bias1) / ((*v / bias2).sqrt() + EPSILON);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_has_the_length_of_the_rate() {
        let mut parameters = [1.0, -2.0, 3.0];
        Adam::new(3).step(&mut parameters, &[0.5, -10.0, 0.0], 0.1);
        for (p, expected) in parameters.iter().zip([0.9, -1.9, 3.0]) {
            assert!((p - expected).abs() < 1e-6, "{parameters:?}");
        }
    }

    #[test]
    fn it_finds_the_minimum_of_a_bowl() {
        let mut parameters = [5.0, -3.0];
        let mut adam = Adam::new(2);
        for _ in 0..2000 {
            let gradient = [2.0 * (parameters[0] - 1.0), 20.0 * (parameters[1] - 2.0)];
            adam.step(&mut parameters, &gradient, 0.02);
        }
        assert!((parameters[0] - 1.0).abs() < 0.01 && (parameters[1] - 2.0).abs() < 0.01);
    }
}
