//! What follows from the order of a class's probabilities: average precision and the threshold
//! with the best F1.

use super::{Labelled, f1_score};

/// Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct probabilities from high to low, as scikit-learn's
/// `average_precision_score`; `None` for a class without positives.
pub(super) fn average_precision(data: &Labelled, class: usize) -> Option<f64> {
    let ranked = ranked(data, class);
    let positives = positives_in(&ranked);
    let (mut seen, mut hits, mut area) = (0, 0, 0.0);
    for tie in ties(&ranked) {
        let new_hits = positives_in(tie);
        seen += tie.len();
        hits += new_hits;
        area += new_hits as f64 * hits as f64 / seen as f64;
    }
    (positives > 0).then(|| area / positives as f64)
}

/// The threshold of each class that gives the highest F1 on `data`, 0–1.
///
/// It lies half-way between the lowest probability that it lets pass and the next lower one (or
/// 0). Of equally good thresholds the highest is taken; a class without positives keeps 0.5.
#[must_use]
pub fn tune_thresholds(data: &Labelled) -> Vec<f32> {
    (0..data.classes)
        .map(|class| best_threshold(&ranked(data, class)))
        .collect()
}

fn best_threshold(ranked: &[(f32, bool)]) -> f32 {
    let positives = positives_in(ranked);
    let (mut seen, mut hits) = (0, 0);
    let (mut best, mut threshold) = (0.0, 0.5);
    for tie in ties(ranked) {
        seen += tie.len();
        hits += positives_in(tie);
        let f1 = f1_score(hits, seen - hits, positives - hits);
        if f1 > best {
            let (lowest, next) = (tie[0].0, ranked.get(seen).map_or(0.0, |(p, _)| *p));
            let middle = f32::midpoint(lowest, next);
            // Between neighbouring floats there is no middle.
            (best, threshold) = (f1, if middle > next { middle } else { lowest });
        }
    }
    threshold
}

/// One class's probabilities with their truth, the highest first.
fn ranked(data: &Labelled, class: usize) -> Vec<(f32, bool)> {
    let mut ranked: Vec<_> = data.column(class).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked
}

/// Runs of equal probability.
fn ties(ranked: &[(f32, bool)]) -> impl Iterator<Item = &[(f32, bool)]> {
    ranked.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq())
}

fn positives_in(ranked: &[(f32, bool)]) -> usize {
    ranked.iter().filter(|(_, truth)| *truth).count()
}

#[cfg(test)]
mod tests {
    use super::super::evaluate;
    use super::*;

    #[test]
    fn tuning_separates_neighbouring_floats() {
        let low = 0.3_f32;
        let high = low.next_up();
        let probabilities = [low, high];
        let data = Labelled::new(&probabilities, &[0.0, 1.0], 1).unwrap();
        assert_eq!(tune_thresholds(&data), [high]);
        assert!((evaluate(&data, &[high]).macro_f1 - 1.0).abs() < 1e-12);
    }
}
