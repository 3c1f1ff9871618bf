//! The bytes of an infer request, JSON with or without binary tensors behind it, and those of its
//! answer.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::json;
use super::numbers::Numbers;
use super::types::{InferRequest, InferResponse, InputTensor, OutputTensor, WantedOutput};
use crate::tensor::{self, Output, TensorData, TensorFormat};
use crate::{Model, Parsed, ServeError};
use rgby_score::InferenceOutput;
use rgby_score::model_metadata::ModelSpec;

/// How the answer is to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
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
) -> Result<Parsed<Wanted>, ServeError> {
    read(body, header, spec).map_err(ServeError::Invalid)
}

fn read(body: &Bytes, header: Option<&str>, spec: &ModelSpec) -> Result<Parsed<Wanted>, String> {
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
    let request: InferRequest = json::read(&body[..json_len], "infer request")?;
    let outputs = outputs(&request, spec)?;
    let timeout = match request.parameters.get("timeout") {
        Some(value) => tensor::timeout(value.as_u64())?,
        None => None,
    };
    let inputs: Result<[InputTensor; 1], _> = request.inputs.try_into();
    let Ok([tensor]) = inputs else {
        return Err(tensor::not_one_input());
    };
    let InputTensor {
        name,
        shape,
        datatype,
        parameters,
        data,
    } = tensor;
    let form = TensorFormat::of(&name, &datatype, shape, spec)?;
    let data = values(&parameters, data, body.slice(json_len..));
    let data = data.map_err(|e| format!("input `{}`: {e}", form.name()))?;
    let input = form.input(data)?;
    let id = request.id;
    Ok(Parsed {
        input,
        timeout,
        rest: Wanted { id, outputs },
    })
}

/// The outputs that are wanted, and whether each comes as binary data.
fn outputs(request: &InferRequest, spec: &ModelSpec) -> Result<Vec<(&'static str, bool)>, String> {
    let binary = flag(&request.parameters, "binary_data_output")?.unwrap_or(false);
    let names = request.outputs.iter().map(|output| &*output.name);
    let names = tensor::outputs(names, spec)?;
    let mut wanted: Vec<_> = names.into_iter().map(|name| (name, binary)).collect();
    // Where all are wanted, none says how.
    for ((name, as_binary), WantedOutput { parameters, .. }) in
        wanted.iter_mut().zip(&request.outputs)
    {
        tensor::check_extensions(name, |extension| parameters.contains_key(extension))?;
        if let Some(own) = flag(parameters, "binary_data")? {
            *as_binary = own;
        }
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

/// The values of a tensor that is the only one of its request, from where they were sent: in the
/// JSON or behind it.
fn values(
    parameters: &Map<String, Value>,
    data: Option<Numbers>,
    binary: Bytes,
) -> Result<TensorData, String> {
    if parameters.contains_key("shared_memory_region") {
        return Err("shared memory is not among the extensions of this server".into());
    }
    match (parameters.get("binary_data_size"), data) {
        (Some(_), Some(_)) => {
            Err("has both `data` and `binary_data_size`; give one of them".into())
        }
        (None, None) => Err("has neither `data` nor `binary_data_size`".into()),
        (Some(size), None) if size.as_u64() == Some(binary.len() as u64) => {
            Ok(TensorData::Bytes(binary))
        }
        (Some(_), None) => Err(format!(
            "`binary_data_size` must be the number of bytes behind the JSON, {}",
            binary.len()
        )),
        (None, Some(_)) if !binary.is_empty() => Err(format!(
            "{} bytes are behind the JSON that are no input's; see `binary_data_size`",
            binary.len()
        )),
        (None, Some(Numbers(numbers))) => Ok(TensorData::Numbers(numbers)),
    }
}

/// The answer's body, and the length of its JSON if binary tensors follow.
///
/// # Errors
///
/// [`ServeError::Failed`] if it cannot be written, which no model should make happen.
pub(super) fn write(
    wanted: Wanted,
    model: &Model,
    answer: InferenceOutput,
) -> Result<(Vec<u8>, Option<usize>), ServeError> {
    let names = wanted.outputs.iter().map(|(name, _)| *name);
    let outputs = tensor::answered(names, answer, model.spec().classes.len());
    let any_binary = wanted.outputs.iter().any(|(_, as_binary)| *as_binary);
    let mut tensors = Vec::new();
    let mut binary = Vec::new();
    for (output, (_, as_binary)) in outputs.into_iter().zip(wanted.outputs) {
        let Output {
            name,
            shape,
            values,
        } = output;
        let mut parameters = Map::new();
        if as_binary {
            parameters.insert("binary_data_size".into(), (values.len() * 4).into());
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
        id: wanted.id,
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
