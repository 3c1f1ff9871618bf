//! Tensors as the Open Inference Protocol has them, whichever way their bytes come and go.

use std::time::Duration;

use bytes::Bytes;

use super::{Floats, InferenceInput, PLANES_NAME, Pixels, upload_limits};
use rgby_score::model_metadata::{EMBEDDINGS_NAME, ModelSpec};
use rgby_score::{INPUT_NAME, InferenceOutput, OUTPUT_NAME};

/// Most dimensions of a shape that is printed in an error.
const MAX_RANK: usize = 8;
/// What an output's parameters may ask for in vain.
const NOT_OFFERED: [&str; 2] = ["classification", "shared_memory_region"];

/// What a request says of its tensor, checked. Its values are to come.
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
        /// Two bytes a value.
        wide: bool,
    },
}

/// A tensor's values as they were sent.
#[derive(Debug)]
pub(super) enum TensorData {
    /// From JSON.
    Numbers(Vec<f64>),
    /// Typed.
    Floats(Vec<f32>),
    /// Typed.
    Whole(Vec<u32>),
    /// Little-endian.
    Bytes(Bytes),
}

/// A tensor of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Output {
    pub(super) name: &'static str,
    pub(super) shape: [usize; 2],
    pub(super) values: Vec<f32>,
}

/// For requests with none or several.
pub(super) fn not_one_input() -> String {
    format!("give one input, `{INPUT_NAME}` or `{PLANES_NAME}`")
}

impl TensorFormat {
    /// Checks a tensor's name, type and shape.
    pub(super) fn of(
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
                    "unknown input; give `{INPUT_NAME}` or `{PLANES_NAME}`"
                ));
            }
        };
        Ok(Self { kind, shape, len })
    }

    /// The tensor's name.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            TensorKind::Images { .. } => INPUT_NAME,
            TensorKind::Planes { .. } => PLANES_NAME,
        }
    }

    /// The images, if there are as many values as the shape says, and all of them can be.
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
        let (found, what, wanted) = match data {
            TensorData::Numbers(numbers) => (numbers.len(), "values", self.len),
            TensorData::Floats(numbers) => (numbers.len(), "values", self.len),
            TensorData::Whole(numbers) => (numbers.len(), "values", self.len),
            TensorData::Bytes(bytes) => (bytes.len(), "bytes", self.len.saturating_mul(width)),
        };
        if found == wanted {
            return Ok(());
        }
        Err(format!(
            "{found} {what} were sent for the shape {:?}, which takes {wanted}",
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

/// A shape, shortened if it is absurd.
fn printed(shape: &[u64]) -> String {
    match shape.get(..=MAX_RANK) {
        Some(first) => format!("{first:?}…"),
        None => format!("{shape:?}"),
    }
}

fn images(shape: &[u64], spec: &ModelSpec) -> Result<(TensorKind, usize), String> {
    let preprocess = &spec.preprocess;
    let (channels, side) = (preprocess.channels.len(), preprocess.size);
    let wanted = [channels as u64, u64::from(side), u64::from(side)];
    let count = match shape {
        [count, rest @ ..] if *count > 0 && *rest == wanted => usize::try_from(*count).ok(),
        _ => None,
    };
    let len = count.and_then(|count| count.checked_mul(preprocess.input_len()));
    let (Some(count), Some(len)) = (count, len) else {
        return Err(format!(
            "input `{INPUT_NAME}` has the shape {}; it must be [n, {channels}, {side}, {side}], \
             with n from 1",
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
        // The sides are bounded, so that only the count can overflow.
        usize::try_from(count)
            .ok()?
            .checked_mul((channels * height * width) as usize)
    });
    let (Some((count, _, height, width)), Some(len)) = (sizes, len) else {
        return Err(format!(
            "input `{PLANES_NAME}` has the shape {}; it must be [{c}, H, W] or [n, {c}, H, W], \
             with n from 1 and H and W from 1 to {max_side}: the stains {}",
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
        TensorData::Whole(numbers) => {
            Floats::Values(numbers.into_iter().map(|number| number as f32).collect())
        }
        TensorData::Bytes(bytes) => Floats::Bytes(bytes),
    }
}

fn gray_8(data: TensorData) -> Result<Pixels, String> {
    let most = u8::MAX.into();
    let pixels: Vec<u8> = match data {
        TensorData::Bytes(bytes) => return Ok(Pixels::Gray8(bytes)),
        TensorData::Numbers(numbers) => whole(&numbers, most, |number| number as u8)?,
        TensorData::Floats(numbers) => whole(&numbers, most, |number| number as u8)?,
        TensorData::Whole(numbers) => whole(&numbers, most, |number| number as u8)?,
    };
    Ok(Pixels::Gray8(pixels.into()))
}

fn gray_16(data: TensorData) -> Result<Pixels, String> {
    let most = u16::MAX.into();
    Ok(Pixels::Gray16(match data {
        TensorData::Bytes(bytes) => return Ok(Pixels::Gray16Bytes(bytes)),
        TensorData::Numbers(numbers) => whole(&numbers, most, |number| number as u16)?,
        TensorData::Floats(numbers) => whole(&numbers, most, |number| number as u16)?,
        TensorData::Whole(numbers) => whole(&numbers, most, |number| number as u16)?,
    }))
}

/// Whole numbers from 0 to `most`.
fn whole<N: Into<f64> + Copy, T>(
    numbers: &[N],
    most: f64,
    convert: impl Fn(f64) -> T,
) -> Result<Vec<T>, String> {
    let convert = |(at, number): (usize, &N)| {
        let number: f64 = (*number).into();
        let fits = number.fract() == 0.0 && (0.0..=most).contains(&number);
        fits.then(|| convert(number)).ok_or_else(|| {
            format!(
                "value {at} of `{PLANES_NAME}` is {number}; it must be a whole number from 0 to \
                 {most}"
            )
        })
    };
    numbers.iter().enumerate().map(convert).collect()
}

/// The outputs that a request names; all if it names none.
pub(super) fn outputs<'a>(
    named: impl IntoIterator<Item = &'a str>,
    spec: &ModelSpec,
) -> Result<Vec<&'static str>, String> {
    let embeddings = spec.embeddings.map(|_| EMBEDDINGS_NAME);
    let offered = [Some(OUTPUT_NAME), embeddings];
    let offered: Vec<&'static str> = offered.into_iter().flatten().collect();
    let mut wanted = Vec::new();
    for named in named {
        let known = offered.iter().find(|name| **name == named);
        let name = *known
            .ok_or_else(|| format!("unknown output; the model has `{}`", offered.join("`, `")))?;
        if wanted.contains(&name) {
            return Err(format!("output `{name}` is named twice"));
        }
        wanted.push(name);
    }
    Ok(if wanted.is_empty() { offered } else { wanted })
}

/// The time that a request gives itself in its parameters; 0 stands for none, as in Triton.
pub(super) fn timeout(micros: Option<u64>) -> Result<Option<Duration>, String> {
    let micros = micros.ok_or("parameter `timeout` must be a whole number of microseconds")?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

/// Refuses an output that asks, by a parameter, for an extension that is not offered.
pub(super) fn check_extensions(name: &str, asks: impl Fn(&str) -> bool) -> Result<(), String> {
    let Some(extension) = NOT_OFFERED.into_iter().find(|extension| asks(extension)) else {
        return Ok(());
    };
    Err(format!(
        "output `{name}`: `{extension}` is not among the extensions of this server, which its \
         metadata lists"
    ))
}

/// The outputs of that name of an answer to a model of so many classes.
pub(super) fn answered(
    names: impl IntoIterator<Item = &'static str>,
    answer: InferenceOutput,
    classes: usize,
) -> Vec<Output> {
    let count = answer.probabilities.len() / classes.max(1);
    let (mut probabilities, mut embeddings) = (answer.probabilities, answer.embeddings);
    let output = |name| {
        let values = std::mem::take(match name {
            EMBEDDINGS_NAME => &mut embeddings,
            _ => &mut probabilities,
        });
        Output {
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
    fn an_answer_is_given_in_the_order_that_was_asked_for() {
        let answer = InferenceOutput {
            probabilities: vec![0.1, 0.2, 0.3, 0.4],
            embeddings: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        };
        let outputs = answered([EMBEDDINGS_NAME, OUTPUT_NAME], answer, 2);
        let shapes = outputs.iter().map(|output| (output.name, output.shape));
        assert!(shapes.eq([(EMBEDDINGS_NAME, [2, 3]), (OUTPUT_NAME, [2, 2])]));
        assert_eq!(outputs[1].values, [0.1, 0.2, 0.3, 0.4]);
    }
}
