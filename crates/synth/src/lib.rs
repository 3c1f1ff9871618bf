//! Synthetic labelled samples for the demo and the tests: cells whose green channel shows their
//! classes.
//!
//! Each sample depends only on the seed and its number: nuclei in blue, microtubules in red,
//! endoplasmic reticulum in yellow, and a protein in green at the locations of its classes. The
//! images are cartoons. A network trained on them is useless for real cells.

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

use rgby_common::atomic_file::{temp_builder, write_atomic};
use rgby_common::labels::HPA_COUNTS;
use rgby_imaging::{CHANNELS, Planes};

/// Class whose samples need dividing cells.
const MITOTIC_SPINDLE: u16 = 17;

/// Supported sides in pixels.
const SIZES: std::ops::RangeInclusive<u32> = 32..=4096;

/// Configuration of a synthetic data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthConfig {
    pub count: usize,
    /// Side of the square images in pixels, 32 to 4096.
    pub size: u32,
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
    /// Checks that the fields are in range.
    ///
    /// # Errors
    ///
    /// [`SynthError::Config`] with the first invalid field.
    pub fn validate(&self) -> Result<(), SynthError> {
        let fail = |message: String| Err(SynthError::Config(message));
        if self.count == 0 {
            return fail("`count` is 0; it must be at least 1".into());
        }
        if !SIZES.contains(&self.size) {
            let (low, high) = (SIZES.start(), SIZES.end());
            return fail(format!(
                "`size` is {}; it must be {low} to {high} pixels",
                self.size
            ));
        }
        if self.classes.is_empty() {
            return fail("`classes` is empty; list at least one of 0 to 27".into());
        }
        if let Some(bad) = self
            .classes
            .iter()
            .find(|c| usize::from(**c) >= HPA_COUNTS.len())
        {
            return fail(format!("`classes` contains {bad}; classes are 0 to 27"));
        }
        Ok(())
    }
}

/// Why a synthetic data set cannot be written.
#[derive(Debug, Error)]
pub enum SynthError {
    #[error("{0}")]
    Config(String),
    /// The output exists. It is not overwritten, because it may be real data.
    #[error("{} already exists\nhint: use another folder, or remove it first", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
}

/// One synthetic sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthSample {
    /// A version 4 UUID.
    pub id: String,
    /// One to three classes, ascending.
    pub targets: Vec<u16>,
    /// Red, green, blue and yellow, `[4, size, size]`.
    pub planes: Planes,
}

/// Draws sample `index`. It depends on the seed, the classes, the size and `index`, not on the
/// count.
///
/// # Errors
///
/// As [`SynthConfig::validate`].
pub fn sample(config: &SynthConfig, index: usize) -> Result<SynthSample, SynthError> {
    config.validate()?;
    Ok(draw(config, index))
}

/// Writes a data set on all processors: `out/images/<Id>_<colour>.png` (8-bit gray) and
/// `out/labels.csv` (`Id,Target`). `progress` is called with the number of finished samples.
///
/// The images are written to a temporary folder that is then renamed, and `labels.csv` is written
/// last. So a data set with labels is complete.
///
/// # Errors
///
/// [`SynthError`] if the configuration is invalid, if `out` already contains images or labels, or
/// if writing fails.
pub fn generate(
    out: &Path,
    config: &SynthConfig,
    progress: &dyn Fn(usize),
) -> Result<(), SynthError> {
    config.validate()?;
    let (images, labels) = (out.join("images"), out.join("labels.csv"));
    if let Some(existing) = [&images, &labels].into_iter().find(|path| path.exists()) {
        return Err(SynthError::Exists(existing.clone()));
    }
    fs::create_dir_all(out).map_err(io_error(out))?;
    let staged = temp_folder(out).map_err(io_error(out))?;
    let rows = write_images(staged.path(), config, progress)?;
    fs::rename(staged.keep(), &images).map_err(io_error(&images))?;
    let text = rows
        .iter()
        .fold("Id,Target\n".to_owned(), |text, row| text + row + "\n");
    write_atomic(&labels, text.as_bytes()).map_err(io_error(&labels))
}

/// Creates a temporary folder with ordinary permissions.
fn temp_folder(parent: &Path) -> io::Result<tempfile::TempDir> {
    let mut builder = temp_builder();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    builder.tempdir_in(parent)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SynthError {
    let path = path.to_owned();
    |cause| SynthError::Io { path, cause }
}

/// Writes the images of all samples into `folder` and returns their rows of the labels file in
/// order.
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

/// Writes the four files of a sample and returns its row of the labels file.
fn write_sample(folder: &Path, sample: &SynthSample) -> Result<String, SynthError> {
    let Planes { width, height, .. } = sample.planes;
    let planes = sample.planes.data.chunks_exact(sample.planes.plane_len());
    for (channel, plane) in CHANNELS.iter().zip(planes) {
        let path = folder.join(format!("{}_{channel}.png", sample.id));
        image::save_buffer(&path, plane, width, height, ExtendedColorType::L8).map_err(
            |error| {
                io_error(&path)(match error {
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
    let field = cells::Field::new(size, targets.contains(&MITOTIC_SPINDLE), &mut rng);
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

/// Returns a random version 4 UUID, as in the real data.
fn uuid(rng: &mut ChaCha8Rng) -> String {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let text = hex::encode(bytes);
    [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ]
    .join("-")
}

/// Draws one to three classes, weighted by the square root of their counts in the real data. So
/// rare classes stay rare but can be learned. The first samples have the classes in turn, so that
/// each occurs at least once.
fn draw_classes(classes: &[u16], index: usize, rng: &mut ChaCha8Rng) -> Vec<u16> {
    let weights = classes
        .iter()
        .map(|&class| f64::from(HPA_COUNTS[usize::from(class)]).sqrt());
    let chance = WeightedIndex::new(weights).expect("at least one class, and no count is 0");
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
