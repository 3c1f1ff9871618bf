//! Co-occurrence of classes.

/// Returns `[classes][classes]`: the share (0–1) of samples with the row's class that also have the
/// column's class.
///
/// The row of a class without samples is 0. `sets` holds the classes of each sample.
///
/// # Panics
///
/// If a set contains a class outside `0..classes`.
#[must_use]
pub fn cooccurrence(sets: &[Vec<u16>], classes: usize) -> Vec<Vec<f64>> {
    let mut counts = vec![vec![0_u32; classes]; classes];
    for set in sets {
        for &row in set {
            for &column in set {
                counts[usize::from(row)][usize::from(column)] += 1;
            }
        }
    }
    let shares = |(row, counts): (usize, &Vec<u32>)| {
        let total = f64::from(counts[row]);
        let share = |count: &u32| super::ratio(f64::from(*count), total);
        counts.iter().map(share).collect()
    };
    counts.iter().enumerate().map(shares).collect()
}
