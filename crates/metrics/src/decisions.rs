//! Predicted classes and their outcomes.

use super::Labelled;

/// The predicted classes of all samples, compared with the truth.
///
/// Stored sparsely: true negatives, the most frequent outcome, are implied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decisions {
    samples: usize,
    classes: Vec<ClassOutcomes>,
}

/// Sample indices of one class by outcome, without the true negatives. Each list is ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassOutcomes {
    pub true_positives: Vec<u32>,
    pub false_positives: Vec<u32>,
    pub false_negatives: Vec<u32>,
}

impl ClassOutcomes {
    /// Returns the number of true positives, false positives and false negatives.
    pub(super) fn counts(&self) -> [usize; 3] {
        let Self {
            true_positives,
            false_positives,
            false_negatives,
        } = self;
        [true_positives, false_positives, false_negatives].map(Vec::len)
    }
}

impl Decisions {
    /// Predicts each class whose probability is at least its threshold.
    ///
    /// # Panics
    ///
    /// If the number of thresholds differs from the number of classes.
    #[must_use]
    pub fn at(data: &Labelled, thresholds: &[f32]) -> Self {
        assert_eq!(thresholds.len(), data.classes(), "one threshold per class");
        Self::new(data, |_, class| thresholds[class])
    }

    /// Like [`at`](Self::at), but with separate thresholds for each fold.
    ///
    /// # Panics
    ///
    /// If a sample has no fold, or a fold lacks a threshold for a class.
    #[must_use]
    pub fn by_fold(data: &Labelled, folds: &[usize], thresholds: &[Vec<f32>]) -> Self {
        assert_eq!(folds.len(), data.samples(), "one fold per sample");
        Self::new(data, |sample, class| thresholds[folds[sample]][class])
    }

    fn new(data: &Labelled, threshold: impl Fn(usize, usize) -> f32) -> Self {
        let classes = (0..data.classes()).map(|class| {
            let mut outcomes = ClassOutcomes::default();
            for (sample, (probability, truth)) in data.column(class).enumerate() {
                let list = match (probability >= threshold(sample, class), truth) {
                    (true, true) => &mut outcomes.true_positives,
                    (true, false) => &mut outcomes.false_positives,
                    (false, true) => &mut outcomes.false_negatives,
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

    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Returns the outcomes of each class, in the model's order.
    #[must_use]
    pub fn classes(&self) -> &[ClassOutcomes] {
        &self.classes
    }

    /// Returns the predicted classes of each sample, ascending.
    #[must_use]
    pub fn predicted(&self) -> Vec<Vec<u16>> {
        self.by_sample(|outcomes| [&outcomes.true_positives, &outcomes.false_positives])
    }

    /// Returns the true classes of each sample, ascending.
    #[must_use]
    pub fn truth(&self) -> Vec<Vec<u16>> {
        self.by_sample(|outcomes| [&outcomes.true_positives, &outcomes.false_negatives])
    }

    fn by_sample(&self, lists: impl Fn(&ClassOutcomes) -> [&Vec<u32>; 2]) -> Vec<Vec<u16>> {
        let mut classes = vec![Vec::new(); self.samples];
        for (class, outcomes) in self.classes.iter().enumerate() {
            for &sample in lists(outcomes).into_iter().flatten() {
                classes[sample as usize].push(class as u16);
            }
        }
        classes
    }
}
