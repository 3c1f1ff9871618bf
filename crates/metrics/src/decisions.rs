//! What is predicted of each sample, and what of that is right.

use super::Labelled;

/// Which classes are predicted for which samples, kept as the samples where that matters: those
/// that have a class or are said to have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decisions {
    samples: usize,
    classes: Vec<Outcomes>,
}

/// The samples of one class but for the true negatives, each list ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Predicted and true.
    pub hits: Vec<u32>,
    /// Predicted, but not true.
    pub false_alarms: Vec<u32>,
    /// True, but not predicted.
    pub misses: Vec<u32>,
}

impl Decisions {
    /// A class is predicted where its probability is at least its threshold.
    ///
    /// # Panics
    ///
    /// If there is not one threshold for each class.
    #[must_use]
    pub fn at(data: &Labelled, thresholds: &[f32]) -> Self {
        assert_eq!(thresholds.len(), data.classes(), "one threshold a class");
        Self::new(data, |_, class| thresholds[class])
    }

    /// As [`at`](Self::at), with the thresholds of each sample's fold.
    ///
    /// # Panics
    ///
    /// If there is not a fold for each sample, or one threshold a class for each fold.
    #[must_use]
    pub fn by_fold(data: &Labelled, folds: &[usize], thresholds: &[Vec<f32>]) -> Self {
        assert_eq!(folds.len(), data.samples(), "one fold a sample");
        Self::new(data, |sample, class| thresholds[folds[sample]][class])
    }

    fn new(data: &Labelled, threshold: impl Fn(usize, usize) -> f32) -> Self {
        let classes = (0..data.classes()).map(|class| {
            let mut outcomes = Outcomes::default();
            for (sample, (probability, truth)) in data.column(class).enumerate() {
                let list = match (probability >= threshold(sample, class), truth) {
                    (true, true) => &mut outcomes.hits,
                    (true, false) => &mut outcomes.false_alarms,
                    (false, true) => &mut outcomes.misses,
                    (false, false) => continue,
                };
                list.push(sample as u32);
            }
            outcomes
        });
        Self {
            samples: data.samples(),
            classes: classes.collect(),
        }
    }

    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Each class, in the model's order.
    #[must_use]
    pub fn classes(&self) -> &[Outcomes] {
        &self.classes
    }

    /// The classes predicted for each sample, ascending.
    #[must_use]
    pub fn predicted(&self) -> Vec<Vec<u16>> {
        self.by_sample(|outcomes| [&outcomes.hits, &outcomes.false_alarms])
    }

    /// The classes that each sample has, ascending.
    #[must_use]
    pub fn truth(&self) -> Vec<Vec<u16>> {
        self.by_sample(|outcomes| [&outcomes.hits, &outcomes.misses])
    }

    fn by_sample(&self, lists: impl Fn(&Outcomes) -> [&Vec<u32>; 2]) -> Vec<Vec<u16>> {
        let mut classes = vec![Vec::new(); self.samples];
        for (class, outcomes) in self.classes.iter().enumerate() {
            for &sample in lists(outcomes).into_iter().flatten() {
                classes[sample as usize].push(class as u16);
            }
        }
        classes
    }
}
