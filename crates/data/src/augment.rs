//! Random augmentation of training samples.

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::random::{Purpose, generator};
use rgby_imaging::{Augmentation, Crop, DIHEDRAL};

/// `[data.augment]`: random augmentation of training samples. Disabled by default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Applies one of the square's eight symmetries, each with the same probability.
    pub dihedral: bool,
    /// Minimum fraction of width and height that a random crop keeps; 1 disables cropping.
    pub crop: f64,
    /// Scales each stain by a random factor from 1 − `intensity` to 1 + `intensity`.
    pub intensity: f64,
}

impl Default for AugmentConfig {
    /// No augmentation.
    fn default() -> Self {
        Self {
            dihedral: false,
            crop: 1.0,
            intensity: 0.0,
        }
    }
}

impl AugmentConfig {
    /// Checks that the numbers are in range.
    ///
    /// # Errors
    ///
    /// A message that names the field and its valid values.
    pub fn validate(&self) -> Result<(), String> {
        if !(self.crop > 0.0 && self.crop <= 1.0) {
            return Err(format!(
                "data.augment.crop is {}; it must be above 0 and at most 1",
                self.crop
            ));
        }
        if !(0.0..1.0).contains(&self.intensity) {
            return Err(format!(
                "data.augment.intensity is {}; it must be at least 0 and below 1",
                self.intensity
            ));
        }
        Ok(())
    }
}

/// Draws a random [`Augmentation`] for each sample of each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmenter {
    config: AugmentConfig,
    seed: u64,
}

/// Position of a sample in a run, from which its augmentation follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPosition {
    /// Step in the run.
    pub step: u64,
    /// Position in the batch of that step.
    pub position: u32,
}

impl Augmenter {
    /// Returns `None` if the config disables augmentation.
    #[must_use]
    pub fn new(config: AugmentConfig, seed: u64) -> Option<Self> {
        (config != AugmentConfig::default()).then_some(Self { config, seed })
    }

    /// Returns the augmentation of the sample with `stains` stains at `position`.
    ///
    /// It depends only on config, seed and position. So the number of threads has no influence, and
    /// a resumed run repeats it. All numbers are always drawn, so that enabling one kind of
    /// augmentation does not change the others.
    #[must_use]
    pub fn draw(&self, position: BatchPosition, stains: usize) -> Augmentation {
        let numbers = [position.step, u64::from(position.position)];
        let mut rng = generator(self.seed, Purpose::Augment, numbers);
        let symmetry = rng.random_range(0..DIHEDRAL);
        let [share, left, top]: [f64; 3] = rng.random();
        let AugmentConfig {
            dihedral,
            crop,
            intensity,
        } = self.config;
        let gains = (0..stains).map(|_| {
            let uniform: f64 = rng.random();
            (1.0 + intensity * (2.0 * uniform - 1.0)) as f32
        });
        let gains = gains
            .take(if intensity > 0.0 { stains } else { 0 })
            .collect();
        Augmentation {
            crop: (crop < 1.0).then_some(Crop {
                share: crop + (1.0 - crop) * share,
                left,
                top,
            }),
            dihedral: if dihedral { symmetry } else { 0 },
            gains,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: AugmentConfig = AugmentConfig {
        dihedral: true,
        crop: 0.8,
        intensity: 0.2,
    };

    fn draws(config: AugmentConfig, seed: u64) -> Vec<Augmentation> {
        let augment = Augmenter::new(config, seed).unwrap();
        let positions =
            (0..50).flat_map(|step| (0..20).map(move |position| BatchPosition { step, position }));
        positions
            .map(|position| augment.draw(position, 3))
            .collect()
    }

    #[test]
    fn draws_are_uniform_over_their_ranges() {
        let draws = draws(ALL, 1);
        for k in 0..DIHEDRAL {
            let count = draws.iter().filter(|v| v.dihedral == k).count();
            // 1,000 draws, expected count 125, bounds at five standard deviations.
            assert!((73..=177).contains(&count), "symmetry {k}: {count}");
        }
        let shares: Vec<f64> = draws.iter().map(|v| v.crop.unwrap().share).collect();
        let gains: Vec<f64> = draws
            .iter()
            .flat_map(|v| &v.gains)
            .map(|g| f64::from(*g))
            .collect();
        for (values, low, high) in [(shares, 0.8, 1.0), (gains, 0.8, 1.2)] {
            assert!(values.iter().all(|v| (low..=high).contains(v)));
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let error = (high - low) / 12_f64.sqrt() / (values.len() as f64).sqrt();
            assert!(
                (mean - f64::midpoint(low, high)).abs() < 5.0 * error,
                "{mean}"
            );
        }
    }

    #[test]
    fn draws_depend_on_seed_and_position_only() {
        assert_eq!(draws(ALL, 1), draws(ALL, 1));
        assert_ne!(draws(ALL, 1), draws(ALL, 2));
        let draws = draws(ALL, 1);
        for (i, one) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|other| one.crop != other.crop));
        }
    }

    #[test]
    fn kinds_of_augmentation_are_independent() {
        let only = AugmentConfig {
            crop: 0.8,
            ..AugmentConfig::default()
        };
        for (alone, all) in draws(only, 1).iter().zip(draws(ALL, 1)) {
            assert_eq!(alone.crop, all.crop);
            assert_eq!((alone.dihedral, alone.gains.len()), (0, 0));
        }
        assert_eq!(Augmenter::new(AugmentConfig::default(), 1), None);
    }

    #[test]
    fn validation_errors_name_the_field() {
        assert_eq!(ALL.validate(), Ok(()));
        for (text, field) in [
            ("crop = 0.0", "data.augment.crop"),
            ("crop = 1.5", "data.augment.crop"),
            ("crop = nan", "data.augment.crop"),
            ("intensity = 1.0", "data.augment.intensity"),
            ("intensity = -0.1", "data.augment.intensity"),
        ] {
            let config: AugmentConfig = toml::from_str(text).unwrap();
            let error = config.validate().unwrap_err();
            assert!(error.starts_with(field), "{error}");
        }
        assert!(toml::from_str::<AugmentConfig>("flip = true").is_err());
    }
}
