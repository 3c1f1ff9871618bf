//! The eight symmetries of the square.

/// Number of symmetries: half of them turn, half of them mirror.
pub const DIHEDRAL: u8 = 8;

/// Turns or mirrors a square plane of `side`×`side` pixels, in place.
///
/// `k`, 0–7, is read as three bits: 4 exchanges rows and columns, then 2 turns the plane upside
/// down, then 1 mirrors it left to right. So 0 leaves it as it is, 3 is half a turn, 5 a quarter
/// turn clockwise and 6 one counter-clockwise.
///
/// # Panics
///
/// If `k` is above 7 or `plane` does not hold `side`² values.
pub fn dihedral<T: Copy>(plane: &mut [T], side: usize, k: u8) {
    assert!(k < DIHEDRAL, "there are {DIHEDRAL} symmetries, from 0");
    assert_eq!(plane.len(), side * side, "the plane is [side, side]");
    if k & 4 != 0 {
        for y in 0..side {
            for x in 0..y {
                plane.swap(y * side + x, x * side + y);
            }
        }
    }
    if k & 2 != 0 {
        for y in 0..side / 2 {
            let (above, below) = plane.split_at_mut((side - 1 - y) * side);
            above[y * side..(y + 1) * side].swap_with_slice(&mut below[..side]);
        }
    }
    if k & 1 != 0 {
        // A square of side 0 has no rows to take apart.
        plane.chunks_exact_mut(side.max(1)).for_each(<[T]>::reverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(k: u8) -> Vec<u8> {
        let mut plane: Vec<u8> = (1..=9).collect();
        dihedral(&mut plane, 3, k);
        plane
    }

    #[test]
    fn the_named_symmetries_are_what_they_say() {
        assert_eq!(moved(0), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(moved(1), [3, 2, 1, 6, 5, 4, 9, 8, 7]);
        assert_eq!(moved(2), [7, 8, 9, 4, 5, 6, 1, 2, 3]);
        assert_eq!(moved(3), [9, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(moved(4), [1, 4, 7, 2, 5, 8, 3, 6, 9]);
        assert_eq!(moved(5), [7, 4, 1, 8, 5, 2, 9, 6, 3]);
        assert_eq!(moved(6), [3, 6, 9, 2, 5, 8, 1, 4, 7]);
        assert_eq!(moved(7), [9, 6, 3, 8, 5, 2, 7, 4, 1]);
    }

    #[test]
    fn quarter_turns_undo_each_other_and_all_else_itself() {
        for side in 0..6 {
            let plane: Vec<usize> = (0..side * side).collect();
            for k in 0..DIHEDRAL {
                let mut there_and_back = plane.clone();
                dihedral(&mut there_and_back, side, k);
                let inverse = match k {
                    5 => 6,
                    6 => 5,
                    _ => k,
                };
                dihedral(&mut there_and_back, side, inverse);
                assert_eq!(there_and_back, plane, "side {side}, k {k}");
            }
        }
    }
}
