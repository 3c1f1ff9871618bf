//! The bytes of an infer request, JSON with or without binary tensors behind it, and those of its
//! answer.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::numbers::Numbers;
use super::types::{InferRequest, InferResponse, InputTensor, OutputTensor};
use crate::score::{Answer, INPUT_NAME, OUTPUT_NAME};
use crate::serve::{Floats, Input, Model, PLANES_NAME, Parsed, Pixels, ServeError};
use crate::spec::{EMBEDDINGS_NAME, ModelSpec};

/// Most dimensions of a shape that is printed in an error.
const MAX_RANK: usize = 8;

/// How the answer is to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    id: Option<String>,
    /// Name and whether it comes as binary data.
    outputs: Vec<(&'static str, bool)>,
}

/// Reads an infer request's body. `header` is `Inference-Header-Content-Length`, if it has one.
///
/// # Errors
///
/// [`ServeError::Invalid`] for whatever is wrong with it; the message says what.
pub fn parse(
    body: &Bytes,
    header: Option<&str>,
    spec: &ModelSpec,
) -> Result<Parsed<Request>, ServeError> {
    read(body, header, spec).map_err(ServeError::Invalid)
}

fn read(body: &Bytes, header: Option<&str>, spec: &ModelSpec) -> Result<Parsed<Request>, String> {
    let json_len = match header {
        None => body.len(),
        Some(text) => {
            let len = text.parse().ok().filter(|len| *len <= body.len());
            len.ok_or_else(|| {
                format!(
                    "Inference-Header-Content-Length must be the length of the JSON in bytes, at \
                     most the body's {}",
                    body.len()
                )
            })?
        }
    };
    let request: InferRequest = serde_json::from_slice(&body[..json_len])
        .map_err(|error| format!("the body is no infer request: {error}"))?;
    let outputs = outputs(&request, spec)?;
    let timeout = timeout(&request.parameters)?;
    let inputs: Result<[InputTensor; 1], _> = request.inputs.try_into();
    let Ok([tensor]) = inputs else {
        return Err(format!("give one input, `{INPUT_NAME}` or `{PLANES_NAME}`"));
    };
    let binary = body.slice(json_len..);
    let input = match &*tensor.name {
        INPUT_NAME => images(tensor, binary, spec)?,
        PLANES_NAME => planes(tensor, binary, spec)?,
        _ => {
            return Err(format!(
                "unknown input; give `{INPUT_NAME}` or `{PLANES_NAME}`"
            ));
        }
    };
    let id = request.id;
    Ok(Parsed {
        input,
        timeout,
        rest: Request { id, outputs },
    })
}

/// The outputs that are wanted, and whether each comes as binary data.
fn outputs(request: &InferRequest, spec: &ModelSpec) -> Result<Vec<(&'static str, bool)>, String> {
    let binary = flag(&request.parameters, "binary_data_output")?.unwrap_or(false);
    let embeddings = spec.embeddings.map(|_| EMBEDDINGS_NAME);
    let offered = [Some(OUTPUT_NAME), embeddings];
    let offered: Vec<&'static str> = offered.into_iter().flatten().collect();
    if request.outputs.is_empty() {
        return Ok(offered.into_iter().map(|name| (name, binary)).collect());
    }
    let mut wanted: Vec<(&'static str, bool)> = Vec::new();
    for output in &request.outputs {
        let known = offered.iter().find(|name| **name == output.name);
        let name = *known
            .ok_or_else(|| format!("unknown output; the model has `{}`", offered.join("`, `")))?;
        if wanted.iter().any(|(other, _)| *other == name) {
            return Err(format!("output `{name}` is named twice"));
        }
        for extension in ["classification", "shared_memory_region"] {
            if output.parameters.contains_key(extension) {
                return Err(format!(
                    "output `{name}`: `{extension}` is not among the extensions of this server, \
                     which `/v2` lists"
                ));
            }
        }
        wanted.push((
            name,
            flag(&output.parameters, "binary_data")?.unwrap_or(binary),
        ));
    }
    Ok(wanted)
}

fn flag(parameters: &Map<String, Value>, name: &str) -> Result<Option<bool>, String> {
    let Some(value) = parameters.get(name) else {
        return Ok(None);
    };
    let value = value.as_bool();
    value
        .map(Some)
        .ok_or_else(|| format!("parameter `{name}` must be true or false"))
}

/// The request's own time; 0 stands for none, as in Triton.
fn timeout(parameters: &Map<String, Value>) -> Result<Option<Duration>, String> {
    let Some(value) = parameters.get("timeout") else {
        return Ok(None);
    };
    let micros = value.as_u64();
    let micros = micros.ok_or("parameter `timeout` must be a whole number of microseconds")?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

/// A tensor's values where they were sent: in the JSON or behind it.
enum Data {
    Numbers(Vec<f64>),
    Bytes(Bytes),
}

impl Data {
    /// The data of a tensor that is the only one of its request.
    fn of(tensor: &mut InputTensor, binary: Bytes) -> Result<Self, String> {
        if tensor.parameters.contains_key("shared_memory_region") {
            return Err("shared memory is not among the extensions of this server".into());
        }
        let size = tensor.parameters.get("binary_data_size");
        match (size, tensor.data.take()) {
            (Some(_), Some(_)) => {
                Err("has both `data` and `binary_data_size`; give one of them".into())
            }
            (None, None) => Err("has neither `data` nor `binary_data_size`".into()),
            (Some(size), None) if size.as_u64() == Some(binary.len() as u64) => {
                Ok(Self::Bytes(binary))
            }
            (Some(_), None) => Err(format!(
                "`binary_data_size` must be the number of bytes behind the JSON, {}",
                binary.len()
            )),
            (None, Some(_)) if !binary.is_empty() => Err(format!(
                "{} bytes are behind the JSON that are no input's; see `binary_data_size`",
                binary.len()
            )),
            (None, Some(Numbers(numbers))) => Ok(Self::Numbers(numbers)),
        }
    }

    /// Checks that there are as many values of so many bytes as the shape says.
    fn check_len(&self, wanted: usize, width: usize, shape: &[u64]) -> Result<(), String> {
        let (found, what, wanted) = match self {
            Self::Numbers(numbers) => (numbers.len(), "values", wanted),
            Self::Bytes(bytes) => (bytes.len(), "bytes", wanted.saturating_mul(width)),
        };
        if found == wanted {
            return Ok(());
        }
        Err(format!(
            "{found} {what} were sent for the shape {shape:?}, which takes {wanted}"
        ))
    }
}

fn check_type(tensor: &InputTensor, types: &[&str]) -> Result<(), String> {
    if types.contains(&&*tensor.datatype) {
        return Ok(());
    }
    Err(format!(
        "input `{}` must have the datatype {}",
        tensor.name,
        types.join(" or ")
    ))
}

/// A shape, shortened if it is absurd.
fn printed(shape: &[u64]) -> String {
    match shape.get(..=MAX_RANK) {
        Some(first) => format!("{first:?}…"),
        None => format!("{shape:?}"),
    }
}

fn images(mut tensor: InputTensor, binary: Bytes, spec: &ModelSpec) -> Result<Input, String> {
    check_type(&tensor, &["FP32"])?;
    let preprocess = &spec.preprocess;
    let (channels, side) = (preprocess.channels.len(), preprocess.size);
    let wanted = [channels as u64, u64::from(side), u64::from(side)];
    let count = match tensor.shape[..] {
        [count, ref rest @ ..] if count > 0 && *rest == wanted => usize::try_from(count).ok(),
        _ => None,
    };
    let len = count.and_then(|count| count.checked_mul(preprocess.input_len()));
    let (Some(count), Some(len)) = (count, len) else {
        return Err(format!(
            "input `{INPUT_NAME}` has the shape {}; it must be [n, {channels}, {side}, {side}], \
             with n from 1",
            printed(&tensor.shape)
        ));
    };
    let data = Data::of(&mut tensor, binary).map_err(|e| format!("input `{INPUT_NAME}`: {e}"))?;
    data.check_len(len, 4, &tensor.shape)?;
    let values = match data {
        Data::Numbers(numbers) => {
            Floats::Values(numbers.into_iter().map(|number| number as f32).collect())
        }
        Data::Bytes(bytes) => Floats::Bytes(bytes),
    };
    Ok(Input::Images { count, values })
}

fn planes(mut tensor: InputTensor, binary: Bytes, spec: &ModelSpec) -> Result<Input, String> {
    check_type(&tensor, &["UINT8", "UINT16"])?;
    let stains = spec.preprocess.stains();
    let max_side = u64::from(crate::serve::upload_limits().max_side);
    let sizes = match tensor.shape[..] {
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
        // The sides are bounded, so that only the count can overflow.
        usize::try_from(count)
            .ok()?
            .checked_mul((channels * height * width) as usize)
    });
    let (Some((count, _, height, width)), Some(len)) = (sizes, len) else {
        return Err(format!(
            "input `{PLANES_NAME}` has the shape {}; it must be [{c}, H, W] or [n, {c}, H, W], \
             with n from 1 and H and W from 1 to {max_side}: the stains {}",
            printed(&tensor.shape),
            stains.join(", "),
            c = stains.len()
        ));
    };
    let data = Data::of(&mut tensor, binary).map_err(|e| format!("input `{PLANES_NAME}`: {e}"))?;
    let wide = tensor.datatype == "UINT16";
    data.check_len(len, if wide { 2 } else { 1 }, &tensor.shape)?;
    let pixels = match (data, wide) {
        (Data::Bytes(bytes), false) => Pixels::Gray8(bytes),
        (Data::Bytes(bytes), true) => Pixels::Gray16Bytes(bytes),
        (Data::Numbers(numbers), false) => {
            let pixels: Vec<u8> = whole(&numbers, u8::MAX.into(), |number| number as u8)?;
            Pixels::Gray8(pixels.into())
        }
        (Data::Numbers(numbers), true) => {
            Pixels::Gray16(whole(&numbers, u16::MAX.into(), |number| number as u16)?)
        }
    };
    Ok(Input::Planes {
        count: count as usize,
        height: height as u32,
        width: width as u32,
        pixels,
    })
}

/// Whole numbers from 0 to `most`.
fn whole<T>(numbers: &[f64], most: f64, convert: impl Fn(f64) -> T) -> Result<Vec<T>, String> {
    let convert = |(at, number): (usize, &f64)| {
        let fits = number.fract() == 0.0 && (0.0..=most).contains(number);
        fits.then(|| convert(*number)).ok_or_else(|| {
            format!("value {at} of `{PLANES_NAME}` is {number}; it must be a whole number from 0 to {most}")
        })
    };
    numbers.iter().enumerate().map(convert).collect()
}

/// The answer's body, and the length of its JSON if binary tensors follow.
///
/// # Errors
///
/// [`ServeError::Failed`] if it cannot be written, which no model should make happen.
pub(super) fn write(
    request: Request,
    model: &Model,
    answer: Answer,
) -> Result<(Vec<u8>, Option<usize>), ServeError> {
    let classes = model.spec().classes.len();
    let count = answer.probabilities.len() / classes.max(1);
    let (mut probabilities, mut embeddings) = (answer.probabilities, answer.embeddings);
    let mut tensors = Vec::new();
    let mut binary = Vec::new();
    let mut any_binary = false;
    for (name, as_binary) in request.outputs {
        let values = std::mem::take(match name {
            EMBEDDINGS_NAME => &mut embeddings,
            _ => &mut probabilities,
        });
        let shape = [count, values.len() / count.max(1)];
        let mut parameters = Map::new();
        if as_binary {
            any_binary = true;
            parameters.insert("binary_data_size".into(), json!(values.len() * 4));
            binary.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        tensors.push(OutputTensor {
            name,
            shape,
            datatype: "FP32",
            parameters,
            data: (!as_binary).then_some(values),
        });
    }
    let response = InferResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_owned(),
        id: request.id,
        outputs: tensors,
    };
    let failed = |error: serde_json::Error| ServeError::Failed(error.to_string());
    let mut body = serde_json::to_vec(&response).map_err(failed)?;
    let json_len = body.len();
    body.extend(binary);
    Ok((body, any_binary.then_some(json_len)))
}

#[cfg(test)]
mod tests;
