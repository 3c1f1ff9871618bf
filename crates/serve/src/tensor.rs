//! Tensors of the Open Inference Protocol, shared by REST and gRPC.

use std::time::Duration;

use bytes::Bytes;

use super::{Floats, InferenceInput, PLANES_NAME, Pixels, upload_limits};
use rgby_score::model_metadata::{EMBEDDINGS_NAME, ModelSpec};
use rgby_score::{INPUT_NAME, InferenceOutput, OUTPUT_NAME};

/// Maximum number of dimensions that an error prints.
const MAX_RANK: usize = 8;
/// Parameters of an output that select an unsupported extension.
const UNSUPPORTED_EXTENSIONS: [&str; 2] = ["classification", "shared_memory_region"];

/// Validated name, datatype and shape of a request's tensor.
#[derive(Debug)]
pub(super) struct TensorFormat {
    kind: TensorKind,
    shape: Vec<u64>,
    /// Number of values.
    len: usize,
}

#[derive(Debug, Clone, Copy)]
enum TensorKind {
    Images {
        count: usize,
    },
    Planes {
        count: usize,
        height: u32,
        width: u32,
        /// Whether the pixels have 16 bits.
        wide: bool,
    },
}

/// A tensor's values in the form in which they were sent.
#[derive(Debug)]
pub(super) enum TensorData {
    /// Numbers from JSON.
    Numbers(Vec<f64>),
    /// Typed values of a gRPC message.
    Floats(Vec<f32>),
    /// Typed values of a gRPC message.
    Integers(Vec<u32>),
    /// Little-endian bytes.
    Bytes(Bytes),
}

/// An output tensor of a response.
#[derive(Debug, PartialEq)]
pub(super) struct OutputValues {
    pub(super) name: &'static str,
    pub(super) shape: [usize; 2],
    pub(super) values: Vec<f32>,
}

/// Returns the error for a request with no input or several.
pub(super) fn input_count_error() -> String {
    format!("a request must have exactly one input, `{INPUT_NAME}` or `{PLANES_NAME}`")
}

impl TensorFormat {
    /// Validates a tensor's name, datatype and shape.
    pub(super) fn new(
        name: &str,
        datatype: &str,
        shape: Vec<u64>,
        spec: &ModelSpec,
    ) -> Result<Self, String> {
        let (kind, len) = match name {
            INPUT_NAME => {
                check_type(INPUT_NAME, datatype, &["FP32"])?;
                images(&shape, spec)?
            }
            PLANES_NAME => {
                check_type(PLANES_NAME, datatype, &["UINT8", "UINT16"])?;
                planes(&shape, datatype == "UINT16", spec)?
            }
            _ => {
                return Err(format!(
                    "unknown input; the inputs are `{INPUT_NAME}` and `{PLANES_NAME}`"
                ));
            }
        };
        Ok(Self { kind, shape, len })
    }

    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            TensorKind::Images { .. } => INPUT_NAME,
            TensorKind::Planes { .. } => PLANES_NAME,
        }
    }

    /// Returns the images. The number and the range of the values are checked.
    pub(super) fn input(&self, data: TensorData) -> Result<InferenceInput, String> {
        self.check_len(&data)?;
        match self.kind {
            TensorKind::Images { count } => {
                let values = floats(data);
                Ok(InferenceInput::Images { count, values })
            }
            TensorKind::Planes {
                count,
                height,
                width,
                wide,
            } => Ok(InferenceInput::Planes {
                count,
                height,
                width,
                pixels: if wide { gray_16(data)? } else { gray_8(data)? },
            }),
        }
    }

    fn check_len(&self, data: &TensorData) -> Result<(), String> {
        let width = match self.kind {
            TensorKind::Images { .. } => 4,
            TensorKind::Planes { wide: true, .. } => 2,
            TensorKind::Planes { wide: false, .. } => 1,
        };
        let (found, unit, expected) = match data {
            TensorData::Numbers(numbers) => (numbers.len(), "values", self.len),
            TensorData::Floats(numbers) => (numbers.len(), "values", self.len),
            TensorData::Integers(numbers) => (numbers.len(), "values", self.len),
            TensorData::Bytes(bytes) => (bytes.len(), "bytes", self.len.saturating_mul(width)),
        };
        if found == expected {
            return Ok(());
        }
        Err(format!(
            "{found} {unit} were sent, but the shape {:?} requires {expected}",
            self.shape
        ))
    }
}

fn check_type(name: &str, datatype: &str, types: &[&str]) -> Result<(), String> {
    if types.contains(&datatype) {
        return Ok(());
    }
    Err(format!(
        "input `{name}` must have the datatype {}",
        types.join(" or ")
    ))
}

/// Formats a shape, truncated to a bounded length.
fn printed(shape: &[u64]) -> String {
    match shape.get(..=MAX_RANK) {
        Some(first) => format!("{first:?}…"),
        None => format!("{shape:?}"),
    }
}

fn images(shape: &[u64], spec: &ModelSpec) -> Result<(TensorKind, usize), String> {
    let preprocess = &spec.preprocess;
    let (channels, side) = (preprocess.channels.len(), preprocess.size);
    let expected = [channels as u64, u64::from(side), u64::from(side)];
    let count = match shape {
        [count, image @ ..] if *count > 0 && *image == expected => usize::try_from(*count).ok(),
        _ => None,
    };
    let len = count.and_then(|count| count.checked_mul(preprocess.input_len()));
    let (Some(count), Some(len)) = (count, len) else {
        return Err(format!(
            "input `{INPUT_NAME}` has the shape {}; it must be [n, {channels}, {side}, {side}] \
             with n ≥ 1",
            printed(shape)
        ));
    };
    Ok((TensorKind::Images { count }, len))
}

fn planes(shape: &[u64], wide: bool, spec: &ModelSpec) -> Result<(TensorKind, usize), String> {
    let stains = spec.preprocess.stains();
    let max_side = u64::from(upload_limits().max_side);
    let sizes = match *shape {
        [channels, height, width] => Some((1, channels, height, width)),
        [count, channels, height, width] => Some((count, channels, height, width)),
        _ => None,
    };
    let sizes = sizes.filter(|(count, channels, height, width)| {
        let range = 1..=max_side;
        *count > 0
            && *channels == stains.len() as u64
            && range.contains(height)
            && range.contains(width)
    });
    let len = sizes.and_then(|(count, channels, height, width)| {
        // The sides are bounded, so only the count can overflow.
        usize::try_from(count)
            .ok()?
            .checked_mul((channels * height * width) as usize)
    });
    let (Some((count, _, height, width)), Some(len)) = (sizes, len) else {
        return Err(format!(
            "input `{PLANES_NAME}` has the shape {}; it must be [{c}, H, W] or [n, {c}, H, W] \
             with n ≥ 1, H and W from 1 to {max_side}, and the stains {}",
            printed(shape),
            stains.join(", "),
            c = stains.len()
        ));
    };
    let kind = TensorKind::Planes {
        count: count as usize,
        height: height as u32,
        width: width as u32,
        wide,
    };
    Ok((kind, len))
}

fn floats(data: TensorData) -> Floats {
    match data {
        TensorData::Numbers(numbers) => {
            Floats::Values(numbers.into_iter().map(|number| number as f32).collect())
        }
        TensorData::Floats(values) => Floats::Values(values),
        TensorData::Integers(numbers) => {
            Floats::Values(numbers.into_iter().map(|number| number as f32).collect())
        }
        TensorData::Bytes(bytes) => Floats::Bytes(bytes),
    }
}

fn gray_8(data: TensorData) -> Result<Pixels, String> {
    let max = u8::MAX.into();
    let pixels: Vec<u8> = match data {
        TensorData::Bytes(bytes) => return Ok(Pixels::Gray8(bytes)),
        TensorData::Numbers(numbers) => integers(&numbers, max, |number| number as u8)?,
        TensorData::Floats(numbers) => integers(&numbers, max, |number| number as u8)?,
        TensorData::Integers(numbers) => integers(&numbers, max, |number| number as u8)?,
    };
    Ok(Pixels::Gray8(pixels.into()))
}

fn gray_16(data: TensorData) -> Result<Pixels, String> {
    let max = u16::MAX.into();
    Ok(Pixels::Gray16(match data {
        TensorData::Bytes(bytes) => return Ok(Pixels::Gray16Bytes(bytes)),
        TensorData::Numbers(numbers) => integers(&numbers, max, |number| number as u16)?,
        TensorData::Floats(numbers) => integers(&numbers, max, |number| number as u16)?,
        TensorData::Integers(numbers) => integers(&numbers, max, |number| number as u16)?,
    }))
}

/// Converts numbers that must be integers from 0 to `max`.
fn integers<N: Into<f64> + Copy, T>(
    numbers: &[N],
    max: f64,
    convert: impl Fn(f64) -> T,
) -> Result<Vec<T>, String> {
    let convert = |(index, number): (usize, &N)| {
        let number: f64 = (*number).into();
        let is_valid = number.fract() == 0.0 && (0.0..=max).contains(&number);
        is_valid.then(|| convert(number)).ok_or_else(|| {
            format!(
                "value {index} of `{PLANES_NAME}` is {number}; it must be a whole number from 0 \
                 to {max}"
            )
        })
    };
    numbers.iter().enumerate().map(convert).collect()
}

/// Returns the requested outputs; all outputs of the model if none is named.
pub(super) fn outputs<'a>(
    requested: impl IntoIterator<Item = &'a str>,
    spec: &ModelSpec,
) -> Result<Vec<&'static str>, String> {
    let embeddings = spec.embeddings.map(|_| EMBEDDINGS_NAME);
    let available = [Some(OUTPUT_NAME), embeddings];
    let available: Vec<&'static str> = available.into_iter().flatten().collect();
    let mut outputs = Vec::new();
    for requested in requested {
        let known = available.iter().find(|name| **name == requested);
        let name = *known.ok_or_else(|| {
            let available = available.join("`, `");
            format!("unknown output; the model has `{available}`")
        })?;
        if outputs.contains(&name) {
            return Err(format!("output `{name}` is named twice"));
        }
        outputs.push(name);
    }
    Ok(if outputs.is_empty() {
        available
    } else {
        outputs
    })
}

/// Converts the parameter `timeout`; 0 means no timeout, as in Triton.
pub(super) fn timeout(micros: Option<u64>) -> Result<Option<Duration>, String> {
    let micros = micros.ok_or("parameter `timeout` must be a whole number of microseconds")?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

/// Rejects an output with a parameter of an unsupported extension.
pub(super) fn check_extensions(
    name: &str,
    has_parameter: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let mut unsupported = UNSUPPORTED_EXTENSIONS.into_iter();
    let Some(extension) = unsupported.find(|extension| has_parameter(extension)) else {
        return Ok(());
    };
    Err(format!(
        "output `{name}`: the extension `{extension}` is not supported; the server metadata lists \
         the supported ones"
    ))
}

/// Returns the named outputs. `classes` is the number of probabilities per image.
pub(super) fn output_values(
    names: impl IntoIterator<Item = &'static str>,
    output: InferenceOutput,
    classes: usize,
) -> Vec<OutputValues> {
    let count = output.probabilities.len() / classes.max(1);
    let (mut probabilities, mut embeddings) = (output.probabilities, output.embeddings);
    let output = |name| {
        let values = std::mem::take(match name {
            EMBEDDINGS_NAME => &mut embeddings,
            _ => &mut probabilities,
        });
        OutputValues {
            name,
            shape: [count, values.len() / count.max(1)],
            values,
        }
    };
    names.into_iter().map(output).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_in_the_requested_order() {
        let output = InferenceOutput {
            probabilities: vec![0.1, 0.2, 0.3, 0.4],
            embeddings: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        };
        let outputs = output_values([EMBEDDINGS_NAME, OUTPUT_NAME], output, 2);
        let shapes = outputs.iter().map(|output| (output.name, output.shape));
        assert!(shapes.eq([(EMBEDDINGS_NAME, [2, 3]), (OUTPUT_NAME, [2, 2])]));
        assert_eq!(outputs[1].values, [0.1, 0.2, 0.3, 0.4]);
    }
}
