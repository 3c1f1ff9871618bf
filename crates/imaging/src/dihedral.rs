//! The eight symmetries of the square (the dihedral group).

/// Number of symmetries: four rotations and four reflections.
pub const DIHEDRAL: u8 = 8;

/// Applies symmetry `k` to a square plane of `side`×`side` pixels, in place.
///
/// `k`, 0–7, has three bits: 4 transposes, then 2 flips vertically, then 1 flips horizontally. So 0
/// is the identity, 3 rotates by 180°, 5 by 90° clockwise and 6 by 90° counter-clockwise.
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
        // `chunks_exact_mut` rejects 0, the side of an empty plane.
        plane.chunks_exact_mut(side.max(1)).for_each(<[T]>::reverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transformed(k: u8) -> Vec<u8> {
        let mut plane: Vec<u8> = (1..=9).collect();
        dihedral(&mut plane, 3, k);
        plane
    }

    #[test]
    fn every_number_is_the_documented_symmetry() {
        assert_eq!(transformed(0), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(transformed(1), [3, 2, 1, 6, 5, 4, 9, 8, 7]);
        assert_eq!(transformed(2), [7, 8, 9, 4, 5, 6, 1, 2, 3]);
        assert_eq!(transformed(3), [9, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(transformed(4), [1, 4, 7, 2, 5, 8, 3, 6, 9]);
        assert_eq!(transformed(5), [7, 4, 1, 8, 5, 2, 9, 6, 3]);
        assert_eq!(transformed(6), [3, 6, 9, 2, 5, 8, 1, 4, 7]);
        assert_eq!(transformed(7), [9, 6, 3, 8, 5, 2, 7, 4, 1]);
    }

    #[test]
    fn quarter_turns_invert_each_other_and_all_others_themselves() {
        for side in 0..6 {
            let plane: Vec<usize> = (0..side * side).collect();
            for k in 0..DIHEDRAL {
                let mut restored = plane.clone();
                dihedral(&mut restored, side, k);
                let inverse = match k {
                    5 => 6,
                    6 => 5,
                    _ => k,
                };
                dihedral(&mut restored, side, inverse);
                assert_eq!(restored, plane, "side {side}, k {k}");
            }
        }
    }
}
