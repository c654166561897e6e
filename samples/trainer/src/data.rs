// SPDX-License-Identifier: GPL-2.0
//! The text that is learned: sums of two numbers, made up on the spot. Which
//! ones a rank sees at a step follows from seed, rank and step alone, so that
//! nothing of it needs to be in a checkpoint.

use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The characters, by token.
pub const ALPHABET: &[u8; 13] = b"0123456789+=\n";

/// Where the answer to a sum begins, counted from the sum's start.
const ANSWER: usize = "07+58=".len();

/// One sum.
const SUM: usize = "07+58=065\n".len();

/// Words of the generator's stream set aside for each step.
const WORDS_PER_STEP: u128 = 1 << 20;

/// The stream that evaluation reads; no rank has this number.
const HELD_OUT: u64 = u64::MAX;

/// Rows of consecutive characters, with the character that follows each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Rows.
    pub rows: usize,
    /// Tokens in, row by row.
    pub inputs: Vec<u32>,
    /// The token after each of `inputs`.
    pub targets: Vec<u32>,
}

/// What `rank` learns from at `step`.
pub fn batch(seed: u64, rank: u32, step: u64, rows: usize, context: usize) -> Batch {
    draw(seed, rank.into(), step, rows, context)
}

/// What every evaluation of a run looks at.
pub fn held_out(seed: u64, rows: usize, context: usize) -> Batch {
    draw(seed, HELD_OUT, 0, rows, context)
}

/// Which targets of a batch are digits of an answer, and so can be known.
pub fn answers(context: usize) -> impl Iterator<Item = usize> {
    let is_answer = |target: &usize| (ANSWER..SUM - 1).contains(&(target % SUM));
    // Target i is the character after input i.
    (1..=context).filter(is_answer).map(|target| target - 1)
}

fn draw(seed: u64, stream: u64, step: u64, rows: usize, context: usize) -> Batch {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random.set_word_pos(u128::from(step) * WORDS_PER_STEP);
    let mut batch = Batch {
        rows,
        inputs: Vec::with_capacity(rows * context),
        targets: Vec::with_capacity(rows * context),
    };
    for _ in 0..rows {
        let mut text = String::new();
        while text.len() <= context {
            let (a, b) = (random.next_u32() % 100, random.next_u32() % 100);
            text += &format!("{a:02}+{b:02}={:03}\n", a + b);
        }
        let tokens: Vec<u32> = text.bytes().map(token).collect();
        batch.inputs.extend(&tokens[..context]);
        batch.targets.extend(&tokens[1..=context]);
    }
    batch
}

fn token(byte: u8) -> u32 {
    let found = ALPHABET.iter().position(|&known| known == byte);
    // The text is made of the alphabet.
    found.map_or(0, |token| token as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tokens: &[u32]) -> String {
        tokens
            .iter()
            .map(|&t| ALPHABET[t as usize] as char)
            .collect()
    }

    #[test]
    fn rows_are_sums_and_targets_are_what_follows() {
        let batch = batch(1, 0, 7, 4, 20);
        for row in 0..4 {
            let inputs = &batch.inputs[row * 20..][..20];
            let targets = &batch.targets[row * 20..][..20];
            assert_eq!(inputs[1..], targets[..19]);
            for sum in text(inputs).split_terminator('\n') {
                let (terms, total) = sum.split_once('=').unwrap();
                let (a, b) = terms.split_once('+').unwrap();
                let number = |text: &str| text.parse::<u32>().unwrap();
                assert_eq!(number(a) + number(b), number(total), "{sum}");
            }
        }
    }

    #[test]
    fn answers_are_the_digits_after_the_equals_sign() {
        let batch = batch(1, 0, 7, 1, 20);
        let found: String = answers(20).map(|i| text(&batch.targets[i..=i])).collect();
        let whole = text(&batch.inputs) + &text(&batch.targets[19..]);
        let expected: String = whole
            .split_terminator('\n')
            .filter_map(|sum| sum.split_once('='))
            .map(|(_, total)| total.to_owned())
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_rank_and_step_has_its_own_text() {
        let first = batch(1, 0, 1, 2, 20);
        assert_eq!(batch(1, 0, 1, 2, 20), first);
        for other in [
            batch(2, 0, 1, 2, 20),
            batch(1, 1, 1, 2, 20),
            batch(1, 0, 2, 2, 20),
            held_out(1, 2, 20),
        ] {
            assert_ne!(other, first);
        }
    }
}
