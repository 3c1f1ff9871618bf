//! Parses inference requests and builds their responses.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tonic::metadata::MetadataMap;

use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::proto::model_infer_response::InferOutputTensor;
use super::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::tensor::{self, OutputValues, TensorData, TensorFormat};
use crate::{Model, ParsedRequest, ServeError};
use rgby_score::InferenceOutput;
use rgby_score::model_metadata::ModelSpec;

/// Request id and requested outputs, for the response.
#[derive(Debug, PartialEq, Eq)]
pub struct GrpcResponseFormat {
    id: String,
    outputs: Vec<&'static str>,
}

/// Parses an inference request.
///
/// # Errors
///
/// [`ServeError::Invalid`] if the request is malformed or does not fit the model.
pub fn parse(
    request: ModelInferRequest,
    spec: &ModelSpec,
) -> Result<ParsedRequest<GrpcResponseFormat>, ServeError> {
    read(request, spec).map_err(ServeError::Invalid)
}

fn read(
    request: ModelInferRequest,
    spec: &ModelSpec,
) -> Result<ParsedRequest<GrpcResponseFormat>, String> {
    let outputs = outputs(&request.outputs, spec)?;
    let timeout = timeout(&request.parameters)?;
    let inputs: Result<[InferInputTensor; 1], _> = request.inputs.try_into();
    let Ok([input]) = inputs else {
        return Err(tensor::input_count_error());
    };
    let sizes = input.shape.iter().map(|size| u64::try_from(*size));
    let shape: Result<Vec<u64>, _> = sizes.collect();
    let shape = shape.map_err(|_| "the input's shape has a negative size")?;
    let format = TensorFormat::new(&input.name, &input.datatype, shape, spec)?;
    let data = values(input, request.raw_input_contents);
    let data = data.map_err(|e| format!("input `{}`: {e}", format.name()))?;
    Ok(ParsedRequest {
        input: format.input(data)?,
        timeout,
        context: GrpcResponseFormat {
            id: request.id,
            outputs,
        },
    })
}

fn outputs(
    requested: &[InferRequestedOutputTensor],
    spec: &ModelSpec,
) -> Result<Vec<&'static str>, String> {
    let names = tensor::outputs(requested.iter().map(|output| &*output.name), spec)?;
    for InferRequestedOutputTensor { name, parameters } in requested {
        tensor::check_extensions(name, |extension| parameters.contains_key(extension))?;
    }
    Ok(names)
}

/// Returns the timeout from the request's parameters.
fn timeout(parameters: &HashMap<String, InferParameter>) -> Result<Option<Duration>, String> {
    let Some(parameter) = parameters.get("timeout") else {
        return Ok(None);
    };
    let micros = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(micros)) => micros.try_into().ok(),
        Some(ParameterChoice::Uint64Param(micros)) => Some(micros),
        _ => None,
    };
    tensor::timeout(micros)
}

/// Returns the values of the request's only tensor, from `contents` or `raw_input_contents`.
fn values(input: InferInputTensor, mut raw: Vec<Bytes>) -> Result<TensorData, String> {
    if input.parameters.contains_key("shared_memory_region") {
        return Err("shared memory is not supported".into());
    }
    let InferTensorContents {
        uint_contents,
        fp32_contents,
    } = input.contents.unwrap_or_default();
    let typed = !uint_contents.is_empty() || !fp32_contents.is_empty();
    match (raw.pop(), typed) {
        (Some(_), true) => {
            Err("has both `contents` and `raw_input_contents`; send only one of them".into())
        }
        (Some(_), false) if !raw.is_empty() => Err(format!(
            "has {} `raw_input_contents`; send one",
            raw.len() + 1
        )),
        (Some(bytes), false) => Ok(TensorData::Bytes(bytes)),
        (None, false) => Err("has neither `contents` nor `raw_input_contents`".into()),
        (None, true) => match (&*input.datatype, uint_contents, fp32_contents) {
            ("FP32", uint, fp32) if uint.is_empty() => Ok(TensorData::Floats(fp32)),
            ("FP32", ..) => Err("FP32 values must be in `fp32_contents`".into()),
            (_, uint, fp32) if fp32.is_empty() => Ok(TensorData::Integers(uint)),
            (datatype, ..) => Err(format!("{datatype} values must be in `uint_contents`")),
        },
    }
}

/// Returns the timeout from a call's metadata.
pub(super) fn call_timeout(metadata: &MetadataMap) -> Result<Option<Duration>, ServeError> {
    const MAX_DIGITS: usize = 8;
    let Some(value) = metadata.get("grpc-timeout") else {
        return Ok(None);
    };
    let split = value.to_str().ok();
    let split = split.and_then(|text| text.split_at_checked(text.len().checked_sub(1)?));
    let number = split.and_then(|(digits, unit)| {
        let valid = digits.len() <= MAX_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        Some((digits.parse().ok().filter(|_| valid)?, unit))
    });
    let time = number.and_then(|(number, unit): (u64, _)| match unit {
        "H" => Some(Duration::from_hours(number)),
        "M" => Some(Duration::from_mins(number)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    });
    time.map(Some).ok_or_else(|| {
        ServeError::Invalid(format!(
            "`grpc-timeout` must be a number of at most {MAX_DIGITS} digits and a unit, one of H, \
             M, S, m, u and n"
        ))
    })
}

/// Builds the response message.
pub(super) fn respond(
    format: GrpcResponseFormat,
    model: &Model,
    output: InferenceOutput,
) -> ModelInferResponse {
    let classes = model.spec().classes.len();
    let mut response = ModelInferResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_owned(),
        id: format.id,
        ..ModelInferResponse::default()
    };
    for output in tensor::output_values(format.outputs, output, classes) {
        let OutputValues {
            name,
            shape,
            values,
        } = output;
        response.outputs.push(InferOutputTensor {
            name: name.to_owned(),
            datatype: "FP32".to_owned(),
            shape: shape.map(|size| size as i64).to_vec(),
        });
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        response.raw_output_contents.push(bytes.into());
    }
    response
}

#[cfg(test)]
mod tests;
