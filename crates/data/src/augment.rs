//! Random variations of the training samples.

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::random::{Purpose, generator};
use rgby_imaging::{Crop, DIHEDRAL, Variation};

/// `[data.augment]`: how training samples are varied. By default not at all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Turns and mirrors: one of the square's eight symmetries, each as likely.
    pub dihedral: bool,
    /// Shows a random part, between this share and all of the width and height; 1 shows all.
    pub crop: f64,
    /// Multiplies each stain's pixels by a random factor between 1 minus this and 1 plus this.
    pub intensity: f64,
}

impl Default for AugmentConfig {
    /// No variation.
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
    /// A sentence that names the field and the mend.
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

/// Draws a variation for each sample of each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augment {
    config: AugmentConfig,
    seed: u64,
}

/// Which picture of a run is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPosition {
    /// The step in the run.
    pub step: u64,
    /// The place in the step's batch.
    pub position: u32,
}

impl Augment {
    /// `None` if the config varies nothing.
    #[must_use]
    pub fn new(config: AugmentConfig, seed: u64) -> Option<Self> {
        (config != AugmentConfig::default()).then_some(Self { config, seed })
    }

    /// The variation of the picture at `place`, of a sample with `stains` stains.
    ///
    /// It follows from config, seed and place alone, so it does not matter which thread asks for
    /// it, and a resumed run sees the same pictures. All numbers are drawn whatever the config, so
    /// that switching one kind of variation on leaves the others as they were.
    #[must_use]
    pub fn draw(&self, place: BatchPosition, stains: usize) -> Variation {
        let numbers = [place.step, u64::from(place.position)];
        let mut rng = generator(self.seed, Purpose::Augment, numbers);
        let symmetry = rng.random_range(0..DIHEDRAL);
        let [share, left, top]: [f64; 3] = rng.random();
        let AugmentConfig {
            dihedral,
            crop,
            intensity,
        } = self.config;
        let gains = (0..stains).map(|_| {
            let between: f64 = rng.random();
            (1.0 + intensity * (2.0 * between - 1.0)) as f32
        });
        let gains = gains
            .take(if intensity > 0.0 { stains } else { 0 })
            .collect();
        Variation {
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

    fn draws(config: AugmentConfig, seed: u64) -> Vec<Variation> {
        let augment = Augment::new(config, seed).unwrap();
        let places =
            (0..50).flat_map(|step| (0..20).map(move |position| BatchPosition { step, position }));
        places.map(|place| augment.draw(place, 3)).collect()
    }

    #[test]
    fn draws_are_spread_over_their_ranges() {
        let draws = draws(ALL, 1);
        for k in 0..DIHEDRAL {
            let count = draws.iter().filter(|v| v.dihedral == k).count();
            // A thousand draws, 125 expected, five standard deviations.
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
    fn a_draw_follows_from_seed_and_place() {
        assert_eq!(draws(ALL, 1), draws(ALL, 1));
        assert_ne!(draws(ALL, 1), draws(ALL, 2));
        let draws = draws(ALL, 1);
        for (i, one) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|other| one.crop != other.crop));
        }
    }

    #[test]
    fn each_kind_is_independent_of_the_others() {
        let only = AugmentConfig {
            crop: 0.8,
            ..AugmentConfig::default()
        };
        for (alone, all) in draws(only, 1).iter().zip(draws(ALL, 1)) {
            assert_eq!(alone.crop, all.crop);
            assert_eq!((alone.dihedral, alone.gains.len()), (0, 0));
        }
        assert_eq!(Augment::new(AugmentConfig::default(), 1), None);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
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
