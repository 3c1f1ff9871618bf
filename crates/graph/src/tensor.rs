//! Reads and writes the numbers of a `TensorProto` in all of its fields and types.

use half::{bf16, f16};

use super::{GraphError, TensorProto};

/// `TensorProto.DataType.FLOAT`.
pub const FLOAT: i32 = 1;
/// `TensorProto.DataType.UINT8`.
pub(super) const UINT8: i32 = 2;
/// `TensorProto.DataType.INT8`.
pub(super) const INT8: i32 = 3;
/// `TensorProto.DataType.INT32`.
pub(super) const INT32: i32 = 6;
/// `TensorProto.DataType.INT64`.
pub(super) const INT64: i32 = 7;
/// `TensorProto.DataType.FLOAT16`.
pub const FLOAT16: i32 = 10;
/// `TensorProto.DataType.DOUBLE`.
pub(super) const DOUBLE: i32 = 11;
/// `TensorProto.DataType.BFLOAT16`.
pub(super) const BFLOAT16: i32 = 16;
/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// Names of `TensorProto.DataType`, indexed by number.
const TYPES: [&str; 27] = [
    "undefined",
    "float32",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "string",
    "bool",
    "float16",
    "float64",
    "uint32",
    "uint64",
    "complex64",
    "complex128",
    "bfloat16",
    "float8e4m3fn",
    "float8e4m3fnuz",
    "float8e5m2",
    "float8e5m2fnuz",
    "uint4",
    "int4",
    "float4e2m1",
    "float8e8m0",
    "uint2",
    "int2",
];

/// Returns the common name of the element type.
pub(super) fn type_name(tensor: &TensorProto) -> &'static str {
    name_of_type(tensor.data_type)
}

/// Returns the common name of a `TensorProto.DataType`.
#[must_use]
pub fn name_of_type(data_type: i32) -> &'static str {
    usize::try_from(data_type)
        .ok()
        .and_then(|index| TYPES.get(index))
        .unwrap_or(&"unknown to ONNX")
}

/// Returns the number of elements.
///
/// # Errors
///
/// A negative dimension, or more elements than memory can address.
pub fn numel(tensor: &TensorProto) -> Result<usize, GraphError> {
    tensor
        .dims
        .iter()
        .try_fold(1_usize, |count, &dim| {
            count.checked_mul(usize::try_from(dim).ok()?)
        })
        .filter(|&count| count <= isize::MAX as usize / 16)
        .ok_or_else(|| refuse(tensor, format!("the shape {:?} is impossible", tensor.dims)))
}

/// Returns the bytes that `raw_data` must hold; `None` for element types without whole bytes.
///
/// # Errors
///
/// As [`numel`].
pub(super) fn expected_bytes(tensor: &TensorProto) -> Result<Option<usize>, GraphError> {
    let width = match tensor.data_type {
        2 | 3 | 9 | 17..=20 | 24 => 1,
        4 | 5 | FLOAT16 | BFLOAT16 => 2,
        FLOAT | INT32 | 12 => 4,
        INT64 | DOUBLE | 13 | 14 => 8,
        15 => 16,
        _ => return Ok(None),
    };
    Ok(Some(numel(tensor)? * width))
}

/// Returns whether the data is in another file.
#[must_use]
pub fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location.value() == EXTERNAL || !tensor.external_data.is_empty()
}

/// Returns whether the tensor itself contains data.
pub(super) fn holds_data(tensor: &TensorProto) -> bool {
    !tensor.raw_data.is_empty() || typed_lengths(tensor).iter().any(|&length| length > 0)
}

fn typed_lengths(tensor: &TensorProto) -> [usize; 6] {
    [
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
        tensor.string_data.len(),
    ]
}

/// Checks that the data is stored once and has as many bytes or values as the shape needs.
///
/// # Errors
///
/// [`GraphError::Tensor`] or [`GraphError::ExternalData`].
pub(super) fn check_data(tensor: &TensorProto) -> Result<(), GraphError> {
    if is_external(tensor) {
        return Err(GraphError::ExternalData(tensor.name.clone()));
    }
    if tensor.segment.is_some() {
        let reason = "it is stored in segments\nhint: re-export the model; no exporter writes them";
        return Err(refuse(tensor, reason.into()));
    }
    if tensor.dims.len() > 1 && numel(tensor)? == 0 {
        // The other dimensions could be arbitrarily large.
        let reason = format!(
            "the shape {:?} has no elements\nhint: re-export the model",
            tensor.dims
        );
        return Err(refuse(tensor, reason));
    }
    let typed = typed_lengths(tensor);
    let fields = typed.iter().filter(|&&length| length > 0).count();
    if fields + usize::from(!tensor.raw_data.is_empty()) > 1 {
        let reason = "its data is stored twice\nhint: re-export the model";
        return Err(refuse(tensor, reason.into()));
    }
    let expected = expected_bytes(tensor)?;
    let (needed, held, unit) = match expected {
        Some(bytes) if !tensor.raw_data.is_empty() => (bytes, tensor.raw_data.len(), "bytes"),
        // Types without whole bytes are refused where their values are read.
        None => return Ok(()),
        // A complex number is stored as two real ones.
        Some(_) => {
            let parts = if matches!(tensor.data_type, 14 | 15) {
                2
            } else {
                1
            };
            (numel(tensor)? * parts, typed.iter().sum(), "values")
        }
    };
    same_length(tensor, needed, held, unit)
}

/// Returns the values of a float tensor of 16, 32 or 64 bits, in row-major order.
///
/// float64 is rounded to float32; the others are exact.
///
/// # Errors
///
/// Another element type, data shorter or longer than the shape, NaN or infinity.
pub fn values(tensor: &TensorProto) -> Result<Vec<f32>, GraphError> {
    if !matches!(tensor.data_type, FLOAT | FLOAT16 | BFLOAT16 | DOUBLE) {
        return Err(refuse(
            tensor,
            format!(
                "element type {} is not a float of 16, 32 or 64 bits\nhint: re-export the model \
                 in float32",
                type_name(tensor)
            ),
        ));
    }
    check_data(tensor)?;
    let raw = &tensor.raw_data;
    let half_bits = || tensor.int32_data.iter().map(|&bits| bits as u16);
    let values: Vec<f32> = match (tensor.data_type, raw.is_empty()) {
        (FLOAT16, true) => half_bits()
            .map(|bits| f16::from_bits(bits).to_f32())
            .collect(),
        (FLOAT16, false) => words(raw, |word| f16::from_le_bytes(word).to_f32()),
        (BFLOAT16, true) => half_bits()
            .map(|bits| bf16::from_bits(bits).to_f32())
            .collect(),
        (BFLOAT16, false) => words(raw, |word| bf16::from_le_bytes(word).to_f32()),
        (DOUBLE, true) => tensor
            .double_data
            .iter()
            .map(|&value| value as f32)
            .collect(),
        (DOUBLE, false) => words(raw, |word| f64::from_le_bytes(word) as f32),
        (_, true) => tensor.float_data.clone(),
        (_, false) => words(raw, f32::from_le_bytes),
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(position) => Err(refuse(
            tensor,
            format!(
                "value {position} is {} in float32\nhint: the file is damaged or its training \
                 diverged",
                values[position]
            ),
        )),
        None => Ok(values),
    }
}

/// Returns the values of an int32 or int64 tensor, in row-major order.
///
/// # Errors
///
/// Another element type, or data shorter or longer than the shape.
pub fn ints(tensor: &TensorProto) -> Result<Vec<i64>, GraphError> {
    if !matches!(tensor.data_type, INT32 | INT64) {
        let found = type_name(tensor);
        return Err(refuse(
            tensor,
            format!(
                "element type {found} is not an integer of 32 or 64 bits\nhint: re-export the model"
            ),
        ));
    }
    check_data(tensor)?;
    let raw = &tensor.raw_data;
    Ok(match (tensor.data_type, raw.is_empty()) {
        (INT32, true) => tensor
            .int32_data
            .iter()
            .map(|&value| value.into())
            .collect(),
        (INT32, false) => words(raw, |word| i32::from_le_bytes(word).into()),
        (_, true) => tensor.int64_data.clone(),
        (_, false) => words(raw, i64::from_le_bytes),
    })
}

/// Replaces the data of a tensor by float32 values.
pub fn set_values(tensor: &mut TensorProto, values: &[f32]) {
    set_data(tensor, FLOAT, values.iter().flat_map(|v| v.to_le_bytes()));
}

/// Replaces the data of a tensor by float16 values.
pub fn set_half_values(tensor: &mut TensorProto, values: &[f16]) {
    set_data(tensor, FLOAT16, values.iter().flat_map(|v| v.to_le_bytes()));
}

/// Replaces the data of a tensor by little-endian bytes of the given `TensorProto.DataType`.
pub(super) fn set_data(tensor: &mut TensorProto, data_type: i32, raw: impl Iterator<Item = u8>) {
    // Drops every other field that describes the old data.
    *tensor = TensorProto {
        name: std::mem::take(&mut tensor.name),
        dims: std::mem::take(&mut tensor.dims),
        doc_string: std::mem::take(&mut tensor.doc_string),
        data_type,
        raw_data: raw.collect::<Vec<u8>>().into(),
        ..TensorProto::default()
    };
}

fn words<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (words, _) = raw.as_chunks::<N>();
    words.iter().map(|word| read(*word)).collect()
}

fn same_length(
    tensor: &TensorProto,
    needed: usize,
    held: usize,
    unit: &str,
) -> Result<(), GraphError> {
    if needed == held {
        return Ok(());
    }
    Err(refuse(
        tensor,
        format!(
            "the shape {:?} needs {needed} {unit}, the file holds {held}\nhint: export or \
             download the file again",
            tensor.dims
        ),
    ))
}

fn refuse(tensor: &TensorProto, reason: String) -> GraphError {
    GraphError::Tensor {
        name: tensor.name.clone(),
        reason,
    }
}
