//! Arithmetic on constant arrays.

use crate::tensor::{INT64, ints, numel, set_values, values};
use crate::{GraphError, TensorProto};

/// Largest result of an operation, elements: four times the largest known weight.
const MAX_ELEMENTS: usize = 1 << 24;
const MAX_RANK: usize = 8;

/// An array in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConstantArray {
    pub dims: Vec<usize>,
    pub data: ConstantData,
}

/// Elements of a [`ConstantArray`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ConstantData {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

impl ConstantArray {
    /// Reads a tensor of floats or integers; `None` for other types and invalid data.
    pub fn read(tensor: &TensorProto) -> Option<Self> {
        (numel(tensor).ok()? <= MAX_ELEMENTS && tensor.dims.len() <= MAX_RANK).then_some(())?;
        let data = match ints(tensor) {
            Ok(values) => ConstantData::Int(values),
            Err(_) => ConstantData::Float(values(tensor).ok()?),
        };
        let dims = tensor.dims.iter().map(|&dim| dim as usize).collect();
        Some(Self { dims, data })
    }

    pub fn len(&self) -> usize {
        match &self.data {
            ConstantData::Float(values) => values.len(),
            ConstantData::Int(values) => values.len(),
        }
    }

    pub fn ints(values: Vec<i64>) -> Self {
        Self {
            dims: vec![values.len()],
            data: ConstantData::Int(values),
        }
    }

    /// Returns a tensor called `name`.
    pub fn write(&self, name: &str) -> Result<TensorProto, GraphError> {
        let mut tensor = TensorProto::new();
        name.clone_into(&mut tensor.name);
        tensor.dims = self.dims.iter().map(|&dim| dim as i64).collect();
        match &self.data {
            ConstantData::Float(values) => set_values(&mut tensor, values),
            ConstantData::Int(values) => {
                tensor.data_type = INT64;
                tensor.int64_data.clone_from(values);
            }
        }
        numel(&tensor)?;
        Ok(tensor)
    }

    /// Broadcasts together with `dims`, as ONNX does; `None` if the shapes do not fit.
    pub fn broadcast(&self, dims: &[usize]) -> Option<Self> {
        let target = broadcast_dims(&self.dims, dims)?;
        let gather = |index: &[usize]| {
            let skipped = target.len() - self.dims.len();
            self.dims
                .iter()
                .zip(&index[skipped..])
                .fold(0, |flat, (&dim, &i)| {
                    flat * dim + if dim == 1 { 0 } else { i }
                })
        };
        Some(self.gathered(&target, gather))
    }

    /// Permutes the axes: axis `i` of the result is axis `perm[i]` of `self`.
    pub fn transpose(&self, perm: &[usize]) -> Option<Self> {
        let mut sorted = perm.to_vec();
        sorted.sort_unstable();
        (sorted == (0..self.dims.len()).collect::<Vec<_>>()).then_some(())?;
        let dims: Vec<usize> = perm.iter().map(|&axis| self.dims[axis]).collect();
        let mut strides = vec![1; self.dims.len()];
        for axis in (1..strides.len()).rev() {
            strides[axis - 1] = strides[axis] * self.dims[axis];
        }
        let gather = |index: &[usize]| {
            perm.iter()
                .zip(index)
                .map(|(&axis, &i)| strides[axis] * i)
                .sum()
        };
        Some(self.gathered(&dims, gather))
    }

    /// Changes the shape; `-1` is inferred, 0 keeps the old length.
    pub fn reshape(&self, shape: &[i64]) -> Option<Self> {
        let count: usize = self.dims.iter().product();
        let mut dims = Vec::with_capacity(shape.len());
        for (axis, &dim) in shape.iter().enumerate() {
            dims.push(match dim {
                0 => *self.dims.get(axis)?,
                -1 => usize::MAX,
                dim => usize::try_from(dim).ok()?,
            });
        }
        let known = product(dims.iter().filter(|&&dim| dim != usize::MAX))?;
        for dim in dims.iter_mut().filter(|dim| **dim == usize::MAX) {
            *dim = count.checked_div(known)?;
        }
        (product(&dims) == Some(count) && dims.len() <= MAX_RANK).then(|| Self {
            dims,
            data: self.data.clone(),
        })
    }

    /// Combines elements with broadcasting; floats only.
    pub fn zip(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Option<Self> {
        let dims = broadcast_dims(&self.dims, &other.dims)?;
        let (ConstantData::Float(a), ConstantData::Float(b)) =
            (self.broadcast(&dims)?.data, other.broadcast(&dims)?.data)
        else {
            return None;
        };
        let data = a.into_iter().zip(b).map(|(a, b)| f(a, b)).collect();
        Some(Self {
            dims,
            data: ConstantData::Float(data),
        })
    }

    /// Maps each element; floats only.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Option<Self> {
        match &self.data {
            ConstantData::Float(values) => Some(Self {
                dims: self.dims.clone(),
                data: ConstantData::Float(values.iter().map(|&value| f(value)).collect()),
            }),
            ConstantData::Int(_) => None,
        }
    }

    fn gathered(&self, dims: &[usize], gather: impl Fn(&[usize]) -> usize) -> Self {
        let count = dims.iter().product();
        let mut index = vec![0; dims.len()];
        let mut flat = Vec::with_capacity(count);
        for _ in 0..count {
            flat.push(gather(&index));
            for axis in (0..dims.len()).rev() {
                index[axis] += 1;
                if index[axis] < dims[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        let data = match &self.data {
            ConstantData::Float(values) => {
                ConstantData::Float(flat.iter().map(|&i| values[i]).collect())
            }
            ConstantData::Int(values) => {
                ConstantData::Int(flat.iter().map(|&i| values[i]).collect())
            }
        };
        Self {
            dims: dims.to_vec(),
            data,
        }
    }
}

/// Returns the shape that two shapes broadcast to, if it is within the limits.
fn broadcast_dims(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |dims: &[usize], axis: usize| {
        (axis + dims.len())
            .checked_sub(rank)
            .map_or(1, |axis| dims[axis])
    };
    let dims = (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (1, n) | (n, 1) => Some(n),
            (n, m) => (n == m).then_some(n),
        })
        .collect::<Option<Vec<_>>>()?;
    (product(&dims)? <= MAX_ELEMENTS && rank <= MAX_RANK).then_some(dims)
}

/// Returns `None` on overflow.
fn product<'d>(dims: impl IntoIterator<Item = &'d usize>) -> Option<usize> {
    dims.into_iter()
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(dims: &[usize], values: &[f32]) -> ConstantArray {
        ConstantArray {
            dims: dims.to_vec(),
            data: ConstantData::Float(values.to_vec()),
        }
    }

    #[test]
    fn broadcasts_like_numpy() {
        let row = floats(&[1, 3], &[1.0, 2.0, 3.0]);
        let column = floats(&[2, 1], &[10.0, 20.0]);
        let sum = row.zip(&column, |a, b| a + b).unwrap();
        assert_eq!(sum, floats(&[2, 3], &[11.0, 12.0, 13.0, 21.0, 22.0, 23.0]));
        assert!(row.broadcast(&[2, 2]).is_none());
        assert!(row.broadcast(&[1 << 40, 3]).is_none(), "too many elements");
        let scalar = floats(&[], &[4.0]);
        assert_eq!(scalar.broadcast(&[2]).unwrap(), floats(&[2], &[4.0, 4.0]));
    }

    #[test]
    fn transposes_elements() {
        let matrix = floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let turned = floats(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(matrix.transpose(&[1, 0]).unwrap(), turned);
        assert!(matrix.transpose(&[0, 0]).is_none());
    }

    #[test]
    fn reshape_keeps_the_number_of_elements() {
        let row = floats(&[6], &[1.0; 6]);
        assert_eq!(row.reshape(&[2, -1]).unwrap().dims, [2, 3]);
        assert_eq!(row.reshape(&[0, 1]).unwrap().dims, [6, 1]);
        assert!(row.reshape(&[4]).is_none());
        assert!(row.reshape(&[0, 0]).is_none());
        assert!(row.reshape(&[i64::MIN]).is_none());
        assert!(row.reshape(&[-1, -1]).is_none());
    }
}
