//! Synthetic labelled samples: cells whose green channel shows the classes they are labelled with.
//!
//! They stand in for real data in the demo and the tests. Each sample is drawn from its seed and
//! number alone: nuclei in blue, microtubules in red, endoplasmic reticulum in yellow, and a
//! protein in green where its classes say that it is. They are cartoons: a network that tells
//! them apart has learned nothing about real cells.

mod canvas;
mod cells;
mod green;
mod stains;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Sender, unbounded};
use image::{ExtendedColorType, ImageError};
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};
use thiserror::Error;

use rgby_common::atomic_file::{hex, temp_builder, write_atomic};
use rgby_common::labels::HPA_COUNTS;
use rgby_imaging::{CHANNELS, Planes};

/// The class whose samples need dividing cells.
const MITOTIC_SPINDLE: u16 = 17;

/// Sides that can be drawn, in pixels.
const SIZES: std::ops::RangeInclusive<u32> = 32..=4096;

/// What to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthConfig {
    /// Number of samples.
    pub count: usize,
    /// Side of the square images in pixels, 32 to 4096.
    pub size: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// Classes to draw from, of the 28 in [`HPA_CLASSES`](rgby_common::labels::HPA_CLASSES).
    pub classes: Vec<u16>,
}

impl Default for SynthConfig {
    /// 256 samples of 512×512 pixels, seed 0, all 28 classes.
    fn default() -> Self {
        Self {
            count: 256,
            size: 512,
            seed: 0,
            classes: (0..28).collect(),
        }
    }
}

impl SynthConfig {
    /// Checks that the fields make sense.
    ///
    /// # Errors
    ///
    /// [`SynthError::Config`] naming the first field that does not.
    pub fn validate(&self) -> Result<(), SynthError> {
        let fail = |message: String| Err(SynthError::Config(message));
        if self.count == 0 {
            return fail("`count` is 0; ask for at least one sample".into());
        }
        if !SIZES.contains(&self.size) {
            let (low, high) = (SIZES.start(), SIZES.end());
            return fail(format!(
                "`size` is {}; it must be {low} to {high} pixels",
                self.size
            ));
        }
        if self.classes.is_empty() {
            return fail("`classes` is empty; name at least one of 0 to 27".into());
        }
        if let Some(bad) = self
            .classes
            .iter()
            .find(|c| usize::from(**c) >= HPA_COUNTS.len())
        {
            return fail(format!("`classes` holds {bad}; classes are 0 to 27"));
        }
        Ok(())
    }
}

/// Why no synthetic data set was written.
#[derive(Debug, Error)]
pub enum SynthError {
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// There is something in the way, which is not overwritten: it may be real data.
    #[error("{} already exists; give another folder or remove it first", .0.display())]
    Exists(PathBuf),
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// One synthetic sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthSample {
    /// Looks like a UUID.
    pub id: String,
    /// One to three classes, ascending.
    pub targets: Vec<u16>,
    /// Red, green, blue and yellow, `[4, size, size]`.
    pub planes: Planes,
}

/// Draws sample `index`. Its content depends on the seed, the classes, the size and `index`, not
/// on the count.
///
/// # Errors
///
/// As [`SynthConfig::validate`].
pub fn sample(config: &SynthConfig, index: usize) -> Result<SynthSample, SynthError> {
    config.validate()?;
    Ok(draw(config, index))
}

/// Writes a data set: `out/images/<Id>_<colour>.png` (8-bit gray) and `out/labels.csv`
/// (`Id,Target`), on all processors. `progress` hears how many samples are done.
///
/// The images are made in a temporary folder beside their place and `labels.csv` is written last:
/// where it is, the data set is complete.
///
/// # Errors
///
/// [`SynthError`] if the configuration makes no sense, if `out` already holds images or labels,
/// or if writing fails.
pub fn generate(
    out: &Path,
    config: &SynthConfig,
    progress: &dyn Fn(usize),
) -> Result<(), SynthError> {
    config.validate()?;
    let (images, labels) = (out.join("images"), out.join("labels.csv"));
    if let Some(there) = [&images, &labels].into_iter().find(|path| path.exists()) {
        return Err(SynthError::Exists(there.clone()));
    }
    fs::create_dir_all(out).map_err(at(out))?;
    let staged = temp_folder(out).map_err(at(out))?;
    let rows = write_images(staged.path(), config, progress)?;
    fs::rename(staged.keep(), &images).map_err(at(&images))?;
    let text = rows
        .iter()
        .fold("Id,Target\n".to_owned(), |text, row| text + row + "\n");
    write_atomic(&labels, text.as_bytes()).map_err(at(&labels))
}

/// A temporary folder with an ordinary folder's permissions.
fn temp_folder(parent: &Path) -> io::Result<tempfile::TempDir> {
    let mut builder = temp_builder();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    builder.tempdir_in(parent)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SynthError {
    let path = path.to_owned();
    |source| SynthError::Io { path, source }
}

/// Writes all samples' images into `folder`; returns their rows of the labels file, in order.
fn write_images(
    folder: &Path,
    config: &SynthConfig,
    progress: &dyn Fn(usize),
) -> Result<Vec<String>, SynthError> {
    let mut rows = vec![String::new(); config.count];
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = |sender: Sender<Result<(usize, String), SynthError>>| {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= config.count {
                return;
            }
            let row = write_sample(folder, &draw(config, index));
            if sender.send(row.map(|row| (index, row))).is_err() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let (sender, done) = unbounded();
        for _ in 0..thread::available_parallelism()
            .map_or(2, usize::from)
            .max(2)
        {
            let sender = sender.clone();
            scope.spawn(|| work(sender));
        }
        drop(sender);
        for (count, row) in done.iter().enumerate() {
            match row {
                Ok((index, row)) => rows[index] = row,
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            progress(count + 1);
        }
        Ok(())
    })?;
    Ok(rows)
}

/// Writes a sample's four files and returns its row of the labels file.
fn write_sample(folder: &Path, sample: &SynthSample) -> Result<String, SynthError> {
    let Planes { width, height, .. } = sample.planes;
    let planes = sample.planes.data.chunks_exact(sample.planes.plane_len());
    for (channel, plane) in CHANNELS.iter().zip(planes) {
        let path = folder.join(format!("{}_{channel}.png", sample.id));
        image::save_buffer(&path, plane, width, height, ExtendedColorType::L8).map_err(
            |error| {
                at(&path)(match error {
                    ImageError::IoError(error) => error,
                    other => io::Error::other(other),
                })
            },
        )?;
    }
    let classes: Vec<_> = sample.targets.iter().map(u16::to_string).collect();
    Ok(format!("{},{}", sample.id, classes.join(" ")))
}

fn draw(config: &SynthConfig, index: usize) -> SynthSample {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&config.seed.to_le_bytes());
    key[8..16].copy_from_slice(&(index as u64).to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    let id = uuid(&mut rng);
    let targets = draw_classes(&config.classes, index, &mut rng);
    let size = config.size as usize;
    let field = cells::Field::grow(size, targets.contains(&MITOTIC_SPINDLE), &mut rng);
    let scene = stains::Scene::new(field, &mut rng);
    let mut stains = [
        scene.red(size),
        green::protein(&scene, &targets, &mut rng),
        scene.blue(size),
        scene.yellow(size),
    ];
    let mut data = Vec::with_capacity(4 * size * size);
    for stain in &mut stains {
        stain.soften();
        let gain = rng.random_range(0.75..0.95);
        data.extend(stain.expose(gain, &mut rng));
    }
    let planes = Planes {
        width: config.size,
        height: config.size,
        channels: 4,
        data,
    };
    SynthSample {
        id,
        targets,
        planes,
    }
}

/// A random identifier that looks like those of the real data, a version 4 UUID.
fn uuid(rng: &mut ChaCha8Rng) -> String {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let text = hex(&bytes);
    [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ]
    .join("-")
}

/// One to three classes, as often as the square root of their counts in the real data: rare ones
/// stay rare but can be learned. The first samples go through the classes in turn, so that each
/// is there at least once.
fn draw_classes(classes: &[u16], index: usize, rng: &mut ChaCha8Rng) -> Vec<u16> {
    let weights = classes
        .iter()
        .map(|&class| f64::from(HPA_COUNTS[usize::from(class)]).sqrt());
    let chance = WeightedIndex::new(weights).expect("there are classes, and no count is 0");
    // Two thirds of the real samples have one class, a quarter two.
    let wanted = [1, 1, 1, 1, 1, 1, 2, 2, 2, 3][rng.random_range(0..10)];
    let mut drawn: BTreeSet<u16> = classes.get(index).copied().into_iter().collect();
    for _ in 0..wanted * 8 {
        if drawn.len() == wanted {
            break;
        }
        drawn.insert(classes[chance.sample(rng)]);
    }
    drawn.into_iter().collect()
}

#[cfg(test)]
mod tests;
