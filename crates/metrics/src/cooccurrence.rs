//! Which classes come together.

/// `[classes][classes]`: of the samples that have the row's class, the share that has the column's,
/// 0–1; a row of a class that none has is 0. `sets` are the classes of each sample.
///
/// # Panics
///
/// If a set holds a class that does not exist.
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
    let share = |(row, counts): (usize, &Vec<u32>)| {
        let all = f64::from(counts[row]);
        let of = |count: &u32| super::ratio(f64::from(*count), all);
        counts.iter().map(of).collect()
    };
    counts.iter().enumerate().map(share).collect()
}
