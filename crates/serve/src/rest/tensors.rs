//! Parses inference requests and writes their responses: JSON, optionally followed by binary
//! tensors.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::json;
use super::json_numbers::JsonNumbers;
use super::types::{InferRequest, InferResponse, InputTensor, OutputTensor, RequestedOutput};
use crate::tensor::{self, OutputValues, TensorData, TensorFormat};
use crate::{Model, ParsedRequest, ServeError};
use rgby_score::InferenceOutput;
use rgby_score::model_metadata::ModelSpec;

/// Request id and requested outputs, for the response.
#[derive(Debug, PartialEq, Eq)]
pub struct RestResponseFormat {
    id: Option<String>,
    /// Name of each output, and whether it is returned as binary data.
    outputs: Vec<(&'static str, bool)>,
}

/// Parses the body of an inference request. `header` is the value of
/// `Inference-Header-Content-Length`, if the request has it.
///
/// # Errors
///
/// [`ServeError::Invalid`] if the request is malformed or does not fit the model.
pub fn parse(
    body: &Bytes,
    header: Option<&str>,
    spec: &ModelSpec,
) -> Result<ParsedRequest<RestResponseFormat>, ServeError> {
    read(body, header, spec).map_err(ServeError::Invalid)
}

fn read(
    body: &Bytes,
    header: Option<&str>,
    spec: &ModelSpec,
) -> Result<ParsedRequest<RestResponseFormat>, String> {
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
        return Err(tensor::input_count_error());
    };
    let InputTensor {
        name,
        shape,
        datatype,
        parameters,
        data,
    } = tensor;
    let format = TensorFormat::new(&name, &datatype, shape, spec)?;
    let data = values(&parameters, data, body.slice(json_len..));
    let data = data.map_err(|e| format!("input `{}`: {e}", format.name()))?;
    let input = format.input(data)?;
    let id = request.id;
    Ok(ParsedRequest {
        input,
        timeout,
        context: RestResponseFormat { id, outputs },
    })
}

/// Returns the requested outputs, and whether each is returned as binary data.
fn outputs(request: &InferRequest, spec: &ModelSpec) -> Result<Vec<(&'static str, bool)>, String> {
    let binary = flag(&request.parameters, "binary_data_output")?.unwrap_or(false);
    let names = request.outputs.iter().map(|output| &*output.name);
    let names = tensor::outputs(names, spec)?;
    let mut outputs: Vec<_> = names.into_iter().map(|name| (name, binary)).collect();
    // If the request names no outputs, none of them has parameters.
    for ((name, as_binary), RequestedOutput { parameters, .. }) in
        outputs.iter_mut().zip(&request.outputs)
    {
        tensor::check_extensions(name, |extension| parameters.contains_key(extension))?;
        if let Some(binary_data) = flag(parameters, "binary_data")? {
            *as_binary = binary_data;
        }
    }
    Ok(outputs)
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

/// Returns the values of the request's only tensor, from the JSON or from the bytes after it.
fn values(
    parameters: &Map<String, Value>,
    data: Option<JsonNumbers>,
    binary: Bytes,
) -> Result<TensorData, String> {
    if parameters.contains_key("shared_memory_region") {
        return Err("shared memory is not supported".into());
    }
    match (parameters.get("binary_data_size"), data) {
        (Some(_), Some(_)) => {
            Err("has both `data` and `binary_data_size`; send only one of them".into())
        }
        (None, None) => Err("has neither `data` nor `binary_data_size`".into()),
        (Some(size), None) if size.as_u64() == Some(binary.len() as u64) => {
            Ok(TensorData::Bytes(binary))
        }
        (Some(_), None) => Err(format!(
            "`binary_data_size` must be the number of bytes after the JSON, {}",
            binary.len()
        )),
        (None, Some(_)) if !binary.is_empty() => Err(format!(
            "{} unexpected bytes after the JSON; binary data requires `binary_data_size`",
            binary.len()
        )),
        (None, Some(JsonNumbers(numbers))) => Ok(TensorData::Numbers(numbers)),
    }
}

/// Returns the response body, and the length of its JSON if binary tensors follow.
///
/// # Errors
///
/// [`ServeError::Failed`] if the JSON cannot be serialized.
pub(super) fn write(
    format: RestResponseFormat,
    model: &Model,
    output: InferenceOutput,
) -> Result<(Vec<u8>, Option<usize>), ServeError> {
    let names = format.outputs.iter().map(|(name, _)| *name);
    let outputs = tensor::output_values(names, output, model.spec().classes.len());
    let any_binary = format.outputs.iter().any(|(_, as_binary)| *as_binary);
    let mut tensors = Vec::new();
    let mut binary = Vec::new();
    for (output, (_, as_binary)) in outputs.into_iter().zip(format.outputs) {
        let OutputValues {
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
        id: format.id,
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
