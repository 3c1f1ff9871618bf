//! The fused operations on Burn's CPU tensors.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, TensorData};

use super::convolve::{bias_gradient, convolve, filters_gradient, input_gradient};
use super::gemm::Matrix;
use super::geometry::Geometry;
use super::normalize::{Moments, NormShape, ScaleShift, normalize, normalize_gradient};
use super::{activate, buffers};
use crate::model::fused::kernels::{
    FusedKernels, FusedOperation, NormConfig, NormOperands, NormResults,
};

/// Returns the values of a contiguous tensor in row-major order.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("operands are contiguous float32")
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

/// Returns the tensor in contiguous layout.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// Releases the memory for reuse, unless it is shared.
fn release(tensor: FlexTensor) {
    if let Some(values) = owned(tensor) {
        buffers::give(values);
    }
}

/// Returns the values, unless they are shared.
fn owned(tensor: FlexTensor) -> Option<Vec<f32>> {
    let whole = tensor.bytes().len() == tensor.shape().num_elements() * size_of::<f32>();
    let alone = whole && tensor.is_unique() && tensor.is_contiguous();
    alone
        .then(|| tensor.into_data().try_into_vec().ok())
        .flatten()
}

/// Returns writable memory with the size of the tensor. If the tensor is not shared, this is its
/// own memory with its values. Otherwise it is a buffer of unspecified values, together with the
/// tensor.
fn writable(tensor: FlexTensor) -> (Vec<f32>, Option<FlexTensor>) {
    let tensor = contiguous(tensor);
    let length = tensor.shape().num_elements();
    if tensor.is_unique() && tensor.bytes().len() == length * size_of::<f32>() {
        let data = tensor.into_data();
        return (data.try_into_vec().expect("operands are float32"), None);
    }
    (buffers::take(length), Some(tensor))
}

fn geometry(input: &FlexTensor, filters: &FlexTensor, options: &ConvOptions<2>) -> Geometry {
    let (input, filters) = (input.shape().dims(), filters.shape().dims());
    Geometry::new(input, filters, options)
        .expect("the caller checked that the geometry is supported")
}

fn conv2d(
    geometry: &Geometry,
    input: &FlexTensor,
    filters: &FlexTensor,
    bias: Option<&FlexTensor>,
) -> FlexTensor {
    let depth = geometry.inputs * geometry.taps();
    let filters = Matrix::rows(values(filters), [geometry.outputs, depth]);
    let output = convolve(geometry, values(input), filters, bias.map(values));
    let [height, width] = geometry.output_size;
    tensor(output, &[geometry.batch, geometry.outputs, height, width])
}

/// A batch normalization layer and its input.
#[derive(Debug)]
struct BatchNormLayer {
    input: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    moments: Moments,
    config: NormConfig,
}

impl BatchNormLayer {
    fn new(operands: NormOperands<Flex>, config: NormConfig) -> Self {
        Self {
            input: contiguous(operands.input),
            gamma: contiguous(operands.gamma),
            beta: contiguous(operands.beta),
            moments: Moments::default(),
            config,
        }
    }

    fn shape(&self) -> NormShape {
        let [_, channels, height, width] = self.input.shape().dims();
        NormShape {
            channels,
            plane: height * width,
        }
    }

    fn affine(&self) -> ScaleShift<'_> {
        ScaleShift {
            gamma: values(&self.gamma),
            beta: values(&self.beta),
            relu: self.config.relu,
        }
    }

    fn forward(&mut self) -> [FlexTensor; 3] {
        let (input, epsilon) = (values(&self.input), self.config.epsilon);
        let (output, moments) = normalize(self.shape(), input, self.affine(), epsilon);
        let statistic = |values: &Vec<f32>| tensor(values.clone(), &[values.len()]);
        let statistics = [statistic(&moments.mean), statistic(&moments.variance)];
        self.moments = moments;
        let output = tensor(output, &self.input.shape());
        let [mean, variance] = statistics;
        [output, mean, variance]
    }
}

impl FusedKernels for Flex {
    type NormState = Moments;

    fn supports(dtype: DType, operation: FusedOperation<'_>) -> bool {
        let shapes = match operation {
            FusedOperation::Conv2d {
                input,
                filters,
                options,
            } => Geometry::new(input, filters, options).is_some(),
            FusedOperation::BatchNorm(input) => !input.contains(&0),
            FusedOperation::Relu => true,
        };
        dtype == DType::F32 && shapes
    }

    fn convolve(
        input: FlexTensor,
        filters: FlexTensor,
        bias: Option<FlexTensor>,
        options: &ConvOptions<2>,
    ) -> FlexTensor {
        let (input, filters) = (contiguous(input), contiguous(filters));
        let geometry = geometry(&input, &filters, options);
        let bias = bias.map(contiguous);
        let output = conv2d(&geometry, &input, &filters, bias.as_ref());
        release(input);
        output
    }

    fn convolve_gradients(
        gradient: FlexTensor,
        operands: [FlexTensor; 2],
        options: &ConvOptions<2>,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let gradient = contiguous(gradient);
        let [input, filters] = operands.map(contiguous);
        let geometry = geometry(&input, &filters, options);
        let [to_input, to_filters, to_bias] = wanted;
        let bias = to_bias.then(|| {
            let sums = bias_gradient(&geometry, values(&gradient));
            tensor(sums, &[geometry.outputs])
        });
        let kernels = to_filters.then(|| {
            let sums = filters_gradient(&geometry, values(&input), values(&gradient));
            tensor(sums, &filters.shape())
        });
        let source = to_input.then(|| {
            let sums = input_gradient(&geometry, values(&filters), values(&gradient));
            tensor(sums, &input.shape())
        });
        release(gradient);
        release(input);
        [source, kernels, bias]
    }

    fn normalize(
        operands: NormOperands<Self>,
        config: NormConfig,
        _may_keep: bool,
    ) -> NormResults<Self> {
        let mut layer = BatchNormLayer::new(operands, config);
        let [output, mean, variance] = layer.forward();
        release(layer.input);
        NormResults {
            output,
            mean,
            variance,
            state: layer.moments,
        }
    }

    fn normalize_gradients(
        gradient: FlexTensor,
        operands: NormOperands<Self>,
        (state, config): (Moments, NormConfig),
        _wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let (mut gradient, source) = writable(gradient);
        let mut layer = BatchNormLayer::new(operands, config);
        layer.moments = state;
        let affine = (layer.affine(), &layer.moments, layer.config.epsilon);
        let source = source.as_ref().map(values);
        let sums = normalize_gradient(
            layer.shape(),
            (values(&layer.input), source),
            affine,
            &mut gradient,
        );
        let gradients = [
            tensor(gradient, &layer.input.shape()),
            tensor(sums.gamma, &layer.gamma.shape()),
            tensor(sums.beta, &layer.beta.shape()),
        ];
        release(layer.input);
        gradients.map(Some)
    }

    fn rectify(input: FlexTensor) -> FlexTensor {
        let shape = input.shape();
        let (mut output, source) = writable(input);
        activate::relu(&mut output, source.as_ref().map(values));
        tensor(output, &shape)
    }

    fn rectify_gradient(gradient: FlexTensor, output: FlexTensor) -> FlexTensor {
        let (mut gradient, source) = writable(gradient);
        activate::relu_gradient(&mut gradient, source.as_ref().map(values), values(&output));
        let gradient = tensor(gradient, &output.shape());
        release(output);
        gradient
    }
}
