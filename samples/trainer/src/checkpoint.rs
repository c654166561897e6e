// SPDX-License-Identifier: GPL-2.0
//! Checkpoints: directories `step-<number>` that exist completely or not at
//! all, and that say themselves whether what they hold is what was written.
//!
//! ```text
//! step-00000120/
//!     model.safetensors    parameters and the optimiser's moments
//!     manifest.json        step, loss, job; size and SHA-256 of each file
//! ```
//! A checkpoint comes into being under another name, is written through to the
//! disk, and is then renamed. What has a dot in front of its name is no
//! checkpoint, whenever the machine or a snapshot came in between.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use candle_core::{safetensors, Device, Tensor};
use nix::fcntl::{renameat2, RenameFlags, AT_FDCWD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::adam::Adam;
use crate::model::{Model, Shape};

const FORMAT: u32 = 1;
const PREFIX: &str = "step-";
const MANIFEST: &str = "manifest.json";
const MODEL: &str = "model.safetensors";
const FIRST_MOMENT: &str = "adam.first.";
const SECOND_MOMENT: &str = "adam.second.";

/// What decides how the training goes on from a given state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Of the data and the first parameters.
    pub seed: u64,
    /// How many train together.
    pub ranks: u32,
    /// Rows that each rank learns from at a step.
    pub batch: usize,
    /// Learning rate.
    pub rate: f32,
    /// Of the model.
    pub shape: Shape,
}

/// What a checkpoint says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Steps that are in it.
    pub step: u64,
    /// Of the last of them.
    pub loss: f64,
    /// How it came about.
    pub job: Job,
    /// By name.
    pub files: BTreeMap<String, Contents>,
    /// SHA-256 of this object as JSON with an empty string in this place.
    sha256: String,
}

/// What a file has to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Size.
    pub bytes: u64,
    /// Of all of them.
    pub sha256: String,
}

impl Contents {
    fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            sha256: sha256(bytes),
        }
    }
}

impl Manifest {
    fn checksum(&self) -> String {
        let unsigned = Self {
            sha256: String::new(),
            ..self.clone()
        };
        // Only maps with keys other than strings can fail, and there are none.
        sha256(&serde_json::to_vec(&unsigned).unwrap_or_default())
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A directory with a checkpoint's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// As its name says.
    pub step: u64,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self.step))
    }
}

fn name(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

fn step_of(file_name: &str) -> Option<u64> {
    let step = file_name.strip_prefix(PREFIX)?.parse().ok()?;
    (name(step) == file_name).then_some(step)
}

/// The entries with a checkpoint's name in `dir`, oldest first.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn list(dir: &Path) -> Result<Vec<Entry>> {
    let what = || dir.display().to_string();
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).with_context(what)? {
        let path = entry.with_context(what)?.path();
        let step = path.file_name().and_then(|name| step_of(name.to_str()?));
        entries.extend(step.map(|step| Entry { path, step }));
    }
    entries.sort_by_key(|entry| entry.step);
    Ok(entries)
}

impl Entry {
    /// The manifest, when the checkpoint is whole.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn verify(&self) -> Result<Manifest> {
        self.read().map(|(manifest, _)| manifest)
    }

    fn read(&self) -> Result<(Manifest, Vec<u8>)> {
        let read = |name: &str| fs::read(self.path.join(name)).with_context(|| name.to_owned());
        let manifest: Manifest = serde_json::from_slice(&read(MANIFEST)?).context(MANIFEST)?;
        ensure!(
            manifest.format == FORMAT,
            "{MANIFEST}: format {}, not {FORMAT}",
            manifest.format
        );
        ensure!(
            manifest.checksum() == manifest.sha256,
            "{MANIFEST}: its checksum does not fit"
        );
        ensure!(
            manifest.step == self.step,
            "{MANIFEST}: of step {}",
            manifest.step
        );
        let Some(contents) = manifest.files.get(MODEL) else {
            bail!("{MANIFEST}: without {MODEL}");
        };
        let model = read(MODEL)?;
        let found = Contents::of(&model);
        ensure!(
            found.bytes == contents.bytes,
            "{MODEL}: {} bytes instead of {}",
            found.bytes,
            contents.bytes
        );
        ensure!(found == *contents, "{MODEL}: its hash does not fit");
        Ok((manifest, model))
    }

    /// Brings the training to where it was.
    ///
    /// # Errors
    ///
    /// When the checkpoint is broken or of another model.
    pub fn load(&self, model: &Model) -> Result<(Manifest, State)> {
        let (manifest, bytes) = self.read()?;
        let tensors = safetensors::load_buffer(&bytes, &Device::Cpu).context(MODEL)?;
        let flat = |prefix: &str| -> Result<Vec<f32>> {
            let mut flat = Vec::with_capacity(model.size());
            for (name, shape, _) in model.named(&vec![0.0; model.size()]) {
                let name = format!("{prefix}{name}");
                let tensor = tensors.get(&name).with_context(|| format!("no {name}"))?;
                ensure!(tensor.dims() == shape, "{name}: {:?}", tensor.dims());
                flat.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
            }
            Ok(flat)
        };
        let state = State {
            parameters: flat("").context(MODEL)?,
            adam: Adam {
                first: flat(FIRST_MOMENT).context(MODEL)?,
                second: flat(SECOND_MOMENT).context(MODEL)?,
                steps: manifest.step,
            },
        };
        Ok((manifest, state))
    }
}

/// What training changes.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Of the model.
    pub parameters: Vec<f32>,
    /// The optimiser; its steps are the training's.
    pub adam: Adam,
}

/// Writes a checkpoint; returns its size in bytes. When this returns, it is on
/// disk, under its name.
///
/// # Errors
///
/// Those of the filesystem.
pub fn write(dir: &Path, model: &Model, state: &State, loss: f64, job: &Job) -> Result<u64> {
    let step = state.adam.steps;
    let temporary = dir.join(format!(".{}.new", name(step)));
    write_at(&temporary, dir, model, state, loss, job)
        .with_context(|| format!("{}: write", dir.join(name(step)).display()))
}

fn write_at(
    temporary: &Path,
    dir: &Path,
    model: &Model,
    state: &State,
    loss: f64,
    job: &Job,
) -> Result<u64> {
    let step = state.adam.steps;
    let mut tensors = HashMap::new();
    for (prefix, flat) in [
        ("", &state.parameters),
        (FIRST_MOMENT, &state.adam.first),
        (SECOND_MOMENT, &state.adam.second),
    ] {
        for (name, shape, values) in model.named(flat) {
            let tensor = Tensor::from_slice(values, shape, &Device::Cpu)?;
            tensors.insert(format!("{prefix}{name}"), tensor);
        }
    }
    remove(temporary)?;
    fs::create_dir(temporary)?;
    let path = temporary.join(MODEL);
    safetensors::save(&tensors, &path)?;
    let bytes = fs::read(&path)?;
    File::open(&path)?.sync_all()?;
    let mut manifest = Manifest {
        format: FORMAT,
        step,
        loss,
        job: job.clone(),
        files: [(MODEL.into(), Contents::of(&bytes))].into(),
        sha256: String::new(),
    };
    manifest.sha256 = manifest.checksum();
    let mut file = File::create(temporary.join(MANIFEST))?;
    file.write_all(&serde_json::to_vec_pretty(&manifest)?)?;
    file.sync_all()?;
    File::open(temporary)?.sync_all()?;

    let path = dir.join(name(step));
    if path.exists() {
        // A broken one: training went back behind it and has come here again.
        renameat2(
            AT_FDCWD,
            temporary,
            AT_FDCWD,
            &path,
            RenameFlags::RENAME_EXCHANGE,
        )?;
    } else {
        fs::rename(temporary, &path)?;
    }
    File::open(dir)?.sync_all()?;
    remove(temporary)?;
    Ok(bytes.len() as u64)
}

/// Deletes all but the `keep` newest checkpoints that are not above `step`,
/// and what was left half made.
///
/// # Errors
///
/// Those of the filesystem.
pub fn clean(dir: &Path, keep: usize, step: u64) -> Result<()> {
    let entries = list(dir)?;
    let own: Vec<_> = entries.iter().filter(|entry| entry.step <= step).collect();
    for entry in own.iter().take(own.len().saturating_sub(keep)) {
        // Not under its name, so that it is never seen half gone.
        let doomed = dir.join(format!(".{entry}.old"));
        remove(&doomed)?;
        fs::rename(&entry.path, doomed).with_context(|| entry.path.display().to_string())?;
    }
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let left = path.file_name().and_then(|name| {
            let name = name.to_str()?.strip_prefix('.')?;
            let name = name.strip_suffix(".new").or(name.strip_suffix(".old"))?;
            step_of(name)
        });
        if left.is_some() {
            remove(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The newest whole checkpoint to go on from; `broken` hears of those that are
/// not.
///
/// # Errors
///
/// When the directory cannot be read, or the checkpoint is of another job.
pub fn newest(
    dir: &Path,
    model: &Model,
    job: &Job,
    mut broken: impl FnMut(&Entry, &anyhow::Error),
) -> Result<Option<(Manifest, State)>> {
    for entry in list(dir)?.iter().rev() {
        let manifest = match entry.verify() {
            Ok(manifest) => manifest,
            Err(err) => {
                broken(entry, &err);
                continue;
            }
        };
        ensure!(
            manifest.job == *job,
            "{}: written by another job: {:?}; this one is {job:?}",
            entry.path.display(),
            manifest.job
        );
        let loaded = entry.load(model);
        return loaded
            .map(Some)
            .with_context(|| entry.path.display().to_string());
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::OnceLock;

    fn job() -> Job {
        Job {
            seed: 1,
            ranks: 2,
            batch: 2,
            rate: 0.01,
            shape: Shape {
                context: 10,
                width: 4,
                heads: 2,
                layers: 1,
            },
        }
    }

    fn model() -> Model {
        Model::new(&job().shape, 1).unwrap()
    }

    fn state(model: &Model, steps: u64) -> State {
        let numbers = |start: u64| {
            (start..)
                .map(|n| n as f32 / 7.0)
                .take(model.size())
                .collect()
        };
        State {
            parameters: numbers(steps),
            adam: Adam {
                first: numbers(1000),
                second: numbers(2000),
                steps,
            },
        }
    }

    fn none(entry: &Entry, err: &anyhow::Error) {
        panic!("{entry}: {err:#}");
    }

    #[test]
    fn what_was_written_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let model = model();
        for step in [10, 20] {
            write(
                dir.path(),
                &model,
                &state(&model, step),
                1.0 / step as f64,
                &job(),
            )
            .unwrap();
        }
        let (manifest, loaded) = newest(dir.path(), &model, &job(), none).unwrap().unwrap();
        assert_eq!((manifest.step, manifest.loss), (20, 0.05));
        assert_eq!(loaded, state(&model, 20));
    }

    #[test]
    fn another_job_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let model = model();
        write(dir.path(), &model, &state(&model, 1), 1.0, &job()).unwrap();
        let other = Job { seed: 2, ..job() };
        let err = newest(dir.path(), &model, &other, none).unwrap_err();
        assert!(err.to_string().contains("another job"), "{err}");
    }

    #[test]
    fn a_broken_one_is_passed_over_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let model = model();
        for step in [10, 20] {
            write(dir.path(), &model, &state(&model, step), 1.0, &job()).unwrap();
        }
        let path = dir.path().join("step-00000020").join(MODEL);
        fs::write(&path, b"").unwrap();
        let mut broken = Vec::new();
        let found = newest(dir.path(), &model, &job(), |entry, err| {
            broken.push(format!("{entry}: {err:#}"));
        });
        assert_eq!(found.unwrap().unwrap().0.step, 10);
        let size = fs::metadata(dir.path().join("step-00000010").join(MODEL)).unwrap();
        let text = format!("step-00000020: {MODEL}: 0 bytes instead of {}", size.len());
        assert_eq!(broken, [text]);
        write(dir.path(), &model, &state(&model, 20), 1.0, &job()).unwrap();
        assert_eq!(
            newest(dir.path(), &model, &job(), none)
                .unwrap()
                .unwrap()
                .0
                .step,
            20
        );
    }

    #[test]
    fn the_oldest_and_what_was_left_half_made_go() {
        let dir = tempfile::tempdir().unwrap();
        let model = model();
        for step in [10, 20, 30, 40] {
            write(dir.path(), &model, &state(&model, step), 1.0, &job()).unwrap();
        }
        for stray in [".step-00000050.new", ".step-00000001.old", ".git", "notes"] {
            fs::create_dir_all(dir.path().join(stray).join("x")).unwrap();
        }
        // 40 is broken and above the step that training went back to.
        clean(dir.path(), 2, 30).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let left = [
            ".git",
            "notes",
            "step-00000020",
            "step-00000030",
            "step-00000040",
        ];
        assert_eq!(names, left);
    }

    #[test]
    fn only_canonical_names_are_checkpoints() {
        assert_eq!(step_of("step-00000120"), Some(120));
        assert_eq!(step_of("step-123456789"), Some(123_456_789));
        for name in [
            "",
            "step-",
            "step-120",
            "step-0000012x",
            ".step-00000120.new",
        ] {
            assert_eq!(step_of(name), None, "{name}");
        }
    }

    /// One good checkpoint for all cases.
    fn good() -> &'static [(String, Vec<u8>)] {
        static GOOD: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
        GOOD.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let model = model();
            write(dir.path(), &model, &state(&model, 7), 0.5, &job()).unwrap();
            let path = dir.path().join("step-00000007");
            let read = |name: &str| (name.to_owned(), fs::read(path.join(name)).unwrap());
            [MANIFEST, MODEL].map(read).into()
        })
    }

    fn verify(files: &[(String, Vec<u8>)]) -> Result<Manifest> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step-00000007");
        fs::create_dir(&path).unwrap();
        for (name, bytes) in files {
            fs::write(path.join(name), bytes).unwrap();
        }
        Entry { path, step: 7 }.verify()
    }

    #[test]
    fn a_missing_file_is_found() {
        assert!(verify(good()).is_ok());
        assert!(verify(&good()[..1]).is_err());
        assert!(verify(&good()[1..]).is_err());
        assert!(verify(&[]).is_err());
    }

    proptest! {
        #[test]
        fn a_manifest_with_any_loss_fits_its_checksum(loss in 0f64..10.0, rate in 0f32..1.0) {
            let mut manifest = verify(good()).unwrap();
            manifest.loss = loss;
            manifest.job.rate = rate;
            manifest.sha256 = manifest.checksum();
            let text = serde_json::to_vec_pretty(&manifest).unwrap();
            let read: Manifest = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(read.checksum(), manifest.sha256);
        }

        #[test]
        fn a_torn_checkpoint_is_found(file in 0usize..2, at: prop::sample::Index) {
            let mut files = good().to_vec();
            let len = at.index(files[file].1.len());
            files[file].1.truncate(len);
            prop_assert!(verify(&files).is_err());
        }

        #[test]
        fn a_flipped_bit_is_found(file in 0usize..2, at: prop::sample::Index, bit in 0u8..8) {
            let mut files = good().to_vec();
            let at = at.index(files[file].1.len());
            files[file].1[at] ^= 1 << bit;
            // White space in the manifest may change into other white space.
            match verify(&files) {
                Err(_) => {}
                Ok(manifest) => prop_assert!(file == 0 && manifest == verify(good()).unwrap()),
            }
        }
    }
}
