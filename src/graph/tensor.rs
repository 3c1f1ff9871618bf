//! Float weights in and out of `TensorProto`.

use super::{GraphError, TensorProto};

/// `TensorProto.DataType.FLOAT`.
pub const FLOAT: i32 = 1;

/// Element count of a tensor.
///
/// # Errors
///
/// A negative dimension, or more elements than memory could address.
pub fn numel(tensor: &TensorProto) -> Result<usize, GraphError> {
    tensor
        .dims
        .iter()
        .try_fold(1_usize, |count, &dim| {
            count.checked_mul(usize::try_from(dim).ok()?)
        })
        .filter(|&count| count <= isize::MAX as usize / 8)
        .ok_or_else(|| GraphError::Tensor {
            name: tensor.name.clone(),
            reason: format!("shape {:?} is impossible", tensor.dims),
        })
}

/// Bytes that `raw_data` must hold, for element types of whole bytes.
pub(super) fn expected_bytes(tensor: &TensorProto) -> Result<Option<usize>, GraphError> {
    let width = match tensor.data_type {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        FLOAT | 6 | 12 => 4,
        7 | 11 | 13 | 14 => 8,
        _ => return Ok(None),
    };
    Ok(Some(numel(tensor)? * width))
}

/// The values of a float32 tensor, in row-major order.
///
/// # Errors
///
/// Another element type, data shorter or longer than the shape, NaN or infinity.
pub fn values(tensor: &TensorProto) -> Result<Vec<f32>, GraphError> {
    let refuse = |reason: String| GraphError::Tensor {
        name: tensor.name.clone(),
        reason,
    };
    if tensor.data_type != FLOAT {
        return Err(refuse(format!(
            "element type {} is not float32; re-export the model in float32",
            tensor.data_type
        )));
    }
    let values: Vec<f32> = if tensor.raw_data.is_empty() {
        tensor.float_data.clone()
    } else {
        let (words, _) = tensor.raw_data.as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    let expected = numel(tensor)?;
    if values.len() != expected {
        return Err(refuse(format!(
            "shape {:?} needs {expected} values, the file holds {}",
            tensor.dims,
            values.len()
        )));
    }
    if let Some(position) = values.iter().position(|value| !value.is_finite()) {
        return Err(refuse(format!("value {position} is {}", values[position])));
    }
    Ok(values)
}

/// Replaces the data of a float32 tensor.
pub fn set_values(tensor: &mut TensorProto, values: &[f32]) {
    tensor.data_type = FLOAT;
    tensor.float_data.clear();
    tensor.raw_data = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect::<Vec<u8>>()
        .into();
}
