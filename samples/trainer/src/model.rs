// SPDX-License-Identifier: GPL-2.0
//! The model: a causal transformer over characters, small enough for a step of
//! some ten milliseconds on an emulated CPU.

use anyhow::{ensure, Context, Result};
use candle_core::{Device, Module, Tensor, Var, D};
use candle_nn::{loss, ops, Embedding, Linear};
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::data::{self, Batch, ALPHABET};

/// Added to the variance in layer norms.
const EPSILON: f32 = 1e-5;

/// Added where a position must not look: ends up as a weight of 0.
const MASKED: f32 = -1e9;

/// The model's size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct Shape {
    /// Characters that it looks back at
    #[arg(long, default_value_t = 20, value_name = "N")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub context: usize,
    /// Width of its layers, a multiple of the heads
    #[arg(long, default_value_t = 16, value_name = "N")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub width: usize,
    /// Attention heads
    #[arg(long, default_value_t = 2, value_name = "N")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub heads: usize,
    /// Transformer blocks
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub layers: usize,
}

/// The model with its parameters.
pub struct Model {
    shape: Shape,
    /// In the order in which they are flattened.
    parameters: Vec<(String, Var)>,
    tokens: Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    head: Linear,
    mask: Tensor,
}

struct Block {
    attention_norm: Norm,
    query_key_value: Linear,
    projection: Linear,
    mlp_norm: Norm,
    up: Linear,
    down: Linear,
}

struct Norm {
    scale: Tensor,
    shift: Tensor,
}

impl Norm {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        // The fused one has no gradient.
        ops::layer_norm_slow(x, &self.scale, &self.shift, EPSILON)
    }
}

/// Makes parameters, in order, from one stream of random numbers.
struct Builder {
    random: ChaCha8Rng,
    parameters: Vec<(String, Var)>,
}

impl Builder {
    fn add(&mut self, name: String, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        let var = Var::from_vec(values, shape, &Device::Cpu)?;
        let tensor = var.as_tensor().clone();
        self.parameters.push((name, var));
        Ok(tensor)
    }

    /// Uniform in ±`bound`.
    fn uniform(&mut self, name: String, bound: f32, shape: &[usize]) -> Result<Tensor> {
        let count = shape.iter().product();
        let mut one = || (self.random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0;
        let values = (0..count).map(|_| bound * one()).collect();
        self.add(name, values, shape)
    }

    fn constant(&mut self, name: String, value: f32, len: usize) -> Result<Tensor> {
        self.add(name, vec![value; len], &[len])
    }

    fn linear(&mut self, name: &str, input: usize, output: usize) -> Result<Linear> {
        let bound = (1.0 / input as f32).sqrt();
        let weight = self.uniform(format!("{name}.weight"), bound, &[output, input])?;
        let bias = self.constant(format!("{name}.bias"), 0.0, output)?;
        Ok(Linear::new(weight, Some(bias)))
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm> {
        Ok(Norm {
            scale: self.constant(format!("{name}.weight"), 1.0, width)?,
            shift: self.constant(format!("{name}.bias"), 0.0, width)?,
        })
    }
}

impl Model {
    /// A model that knows nothing yet; the same for the same seed.
    ///
    /// # Errors
    ///
    /// When the width is no multiple of the heads.
    pub fn new(shape: &Shape, seed: u64) -> Result<Self> {
        let Shape {
            context,
            width,
            heads,
            layers,
        } = *shape;
        ensure!(
            width % heads == 0,
            "--width {width} is no multiple of --heads {heads}"
        );
        let mut build = Builder {
            random: ChaCha8Rng::seed_from_u64(seed),
            parameters: Vec::new(),
        };
        let tokens = build.uniform("tokens".into(), 1.0, &[ALPHABET.len(), width])?;
        let tokens = Embedding::new(tokens, width);
        let positions = build.uniform("positions".into(), 1.0, &[context, width])?;
        let block = |layer| {
            let name = |part: &str| format!("block{layer}.{part}");
            Ok(Block {
                attention_norm: build.norm(&name("attention_norm"), width)?,
                query_key_value: build.linear(&name("query_key_value"), width, 3 * width)?,
                projection: build.linear(&name("projection"), width, width)?,
                mlp_norm: build.norm(&name("mlp_norm"), width)?,
                up: build.linear(&name("up"), width, 4 * width)?,
                down: build.linear(&name("down"), 4 * width, width)?,
            })
        };
        let blocks = (0..layers).map(block).collect::<Result<_>>()?;
        let norm = build.norm("norm", width)?;
        let head = build.linear("head", width, ALPHABET.len())?;
        let masked = |i| {
            if i % context > i / context {
                MASKED
            } else {
                0.0
            }
        };
        let mask: Vec<f32> = (0..context * context).map(masked).collect();
        Ok(Self {
            shape: shape.clone(),
            parameters: build.parameters,
            tokens,
            positions,
            blocks,
            norm,
            head,
            mask: Tensor::from_vec(mask, (context, context), &Device::Cpu)?,
        })
    }

    /// The mean cross-entropy over a batch, in nats, to be minimised.
    ///
    /// # Errors
    ///
    /// Those of candle.
    pub fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let targets = Tensor::from_slice(&batch.targets, batch.targets.len(), &Device::Cpu)?;
        Ok(loss::cross_entropy(&self.logits(batch)?, &targets)?)
    }

    /// The mean cross-entropy, and which part of the digits of the answers is
    /// right.
    ///
    /// # Errors
    ///
    /// Those of candle.
    pub fn evaluate(&self, batch: &Batch) -> Result<(f32, f32)> {
        let logits = self.logits(batch)?.detach();
        let targets = Tensor::from_slice(&batch.targets, batch.targets.len(), &Device::Cpu)?;
        let loss = loss::cross_entropy(&logits, &targets)?.to_scalar()?;
        let said: Vec<u32> = logits.argmax(D::Minus1)?.to_vec1()?;
        let context = self.shape.context;
        let places = (0..batch.rows)
            .flat_map(|row| data::answers(context).map(move |place| row * context + place));
        let right: Vec<bool> = places.map(|i| said[i] == batch.targets[i]).collect();
        let count = right.iter().filter(|right| **right).count();
        Ok((loss, count as f32 / right.len().max(1) as f32))
    }

    /// [rows × context, alphabet].
    fn logits(&self, batch: &Batch) -> candle_core::Result<Tensor> {
        let shape = (batch.rows, self.shape.context);
        let inputs = Tensor::from_slice(&batch.inputs, shape, &Device::Cpu)?;
        let mut x = self
            .tokens
            .forward(&inputs)?
            .broadcast_add(&self.positions)?;
        for block in &self.blocks {
            x = (&x + self.attend(block, &block.attention_norm.forward(&x)?)?)?;
            let hidden = block.up.forward(&block.mlp_norm.forward(&x)?)?.relu()?;
            x = (&x + block.down.forward(&hidden)?)?;
        }
        let logits = self.head.forward(&self.norm.forward(&x)?)?;
        logits.flatten_to(1)
    }

    fn attend(&self, block: &Block, x: &Tensor) -> candle_core::Result<Tensor> {
        let (rows, context, width) = x.dims3()?;
        let heads = self.shape.heads;
        let all = block.query_key_value.forward(x)?;
        let part = |n: usize| {
            all.narrow(2, n * width, width)?
                .reshape((rows, context, heads, width / heads))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let scale = 1.0 / ((width / heads) as f64).sqrt();
        let weights = (query.matmul(&key.t()?)? * scale)?.broadcast_add(&self.mask)?;
        let mixed = ops::softmax(&weights, D::Minus1)?.matmul(&value)?;
        let mixed = mixed.transpose(1, 2)?.reshape((rows, context, width))?;
        block.projection.forward(&mixed)
    }

    /// How many parameters there are.
    pub fn size(&self) -> usize {
        let sizes = self.parameters.iter().map(|(_, var)| var.elem_count());
        sizes.sum()
    }

    /// All parameters, one after the other.
    ///
    /// # Errors
    ///
    /// Those of candle.
    pub fn parameters(&self) -> Result<Vec<f32>> {
        let mut flat = Vec::with_capacity(self.size());
        for (_, var) in &self.parameters {
            flat.extend(var.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(flat)
    }

    /// Replaces all parameters.
    ///
    /// # Errors
    ///
    /// When there are too few or too many.
    pub fn set_parameters(&self, flat: &[f32]) -> Result<()> {
        ensure!(
            flat.len() == self.size(),
            "{} parameters for a model of {}",
            flat.len(),
            self.size()
        );
        for ((_, var), values) in self.parameters.iter().zip(self.split(flat)) {
            var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu)?)?;
        }
        Ok(())
    }

    /// The gradient of a loss, in the order of [`Model::parameters`].
    ///
    /// # Errors
    ///
    /// Those of candle.
    pub fn gradient(&self, loss: &Tensor) -> Result<Vec<f32>> {
        let gradients = loss.backward()?;
        let mut flat = Vec::with_capacity(self.size());
        for (name, var) in &self.parameters {
            let gradient = gradients
                .get(var)
                .with_context(|| format!("{name} has no gradient"))?;
            flat.extend(gradient.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(flat)
    }

    /// Names, shapes and parts of something flat, such as the parameters.
    pub fn named<'a>(
        &'a self,
        flat: &'a [f32],
    ) -> impl Iterator<Item = (&'a str, &'a [usize], &'a [f32])> {
        let parts = self.parameters.iter().zip(self.split(flat));
        parts.map(|((name, var), values)| (name.as_str(), var.dims(), values))
    }

    fn split<'a>(&'a self, mut flat: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
        self.parameters.iter().map_while(move |(_, var)| {
            let (part, rest) = flat.split_at_checked(var.elem_count())?;
            flat = rest;
            Some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adam::Adam;

    fn shape() -> Shape {
        Shape {
            context: 20,
            width: 8,
            heads: 2,
            layers: 1,
        }
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let model = Model::new(&shape(), 3).unwrap();
        let batch = data::batch(3, 0, 1, 2, 20);
        let at = |flat: &[f32]| -> f64 {
            model.set_parameters(flat).unwrap();
            model
                .loss(&batch)
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
                .into()
        };
        let flat = model.parameters().unwrap();
        let gradient = model.gradient(&model.loss(&batch).unwrap()).unwrap();
        // Along the gradient the loss rises by its squared length.
        let slope: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
        let h = 1e-2 / slope.sqrt();
        let moved = |h: f64| -> Vec<f32> {
            let pairs = flat.iter().zip(&gradient);
            pairs.map(|(p, g)| p + (h * f64::from(*g)) as f32).collect()
        };
        let measured = (at(&moved(h)) - at(&moved(-h))) / (2.0 * h);
        assert!((measured / slope - 1.0).abs() < 0.02, "{measured} {slope}");
    }

    #[test]
    fn no_position_sees_what_follows() {
        let model = Model::new(&shape(), 3).unwrap();
        let batch = data::batch(3, 0, 1, 1, 20);
        let mut other = batch.clone();
        other.inputs[15] = (other.inputs[15] + 1) % 10;
        let logits = |batch| model.logits(batch).unwrap().to_vec2::<f32>().unwrap();
        let (a, b) = (logits(&batch), logits(&other));
        assert_eq!(a[..15], b[..15]);
        assert_ne!(a[15..], b[15..]);
    }

    #[test]
    fn it_learns() {
        let model = Model::new(&shape(), 3).unwrap();
        let mut flat = model.parameters().unwrap();
        let mut adam = Adam::new(flat.len());
        let batch = data::batch(3, 0, 1, 4, 20);
        let mut losses = Vec::new();
        for _ in 0..60 {
            let loss = model.loss(&batch).unwrap();
            losses.push(loss.to_scalar::<f32>().unwrap());
            adam.step(&mut flat, &model.gradient(&loss).unwrap(), 1e-2);
            model.set_parameters(&flat).unwrap();
        }
        assert!(losses[59] < losses[0] / 2.0, "{losses:?}");
    }

    #[test]
    fn parameters_come_back_under_their_names() {
        let model = Model::new(&shape(), 3).unwrap();
        let flat: Vec<f32> = (0..model.size()).map(|i| i as f32).collect();
        model.set_parameters(&flat).unwrap();
        assert_eq!(model.parameters().unwrap(), flat);
        let joined: Vec<f32> = model
            .named(&flat)
            .flat_map(|(.., part)| part.to_vec())
            .collect();
        assert_eq!(joined, flat);
        assert!(model.set_parameters(&flat[1..]).is_err());
    }
}
