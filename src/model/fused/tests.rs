//! Compares with Burn's operations, finite differences, and one, two and three threads.

use burn::tensor::module::{self, batch_norm_train};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::{batch_norm, convolution, relu};

fn values(seed: usize, length: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 5003.0 - 1.0;
    (0..length).map(value).collect()
}

fn tensor<const D: usize>(seed: usize, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = values(seed, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn numbers<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

/// The output of an operation and the gradients of its operands.
type OutputAndGradients = Vec<Vec<f32>>;

/// Asserts that each part differs by at most 1e-5 of its largest value.
fn assert_close(ours: &OutputAndGradients, theirs: &OutputAndGradients, what: &str) {
    assert_eq!(ours.len(), theirs.len());
    for (part, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours.len(), theirs.len(), "{what}, part {part}");
        let largest = theirs
            .iter()
            .fold(0.0f32, |most, value| most.max(value.abs()));
        let pairs = ours.iter().zip(theirs);
        let apart = pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(
            apart <= 1e-5 * largest,
            "{what}, part {part}: {apart:e} of {largest}"
        );
    }
}

#[derive(Debug, Clone, Copy)]
struct ConvCase {
    batch: usize,
    /// Number of input and output channels.
    channels: [usize; 2],
    size: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: [(usize, usize); 2],
    bias: bool,
}

impl ConvCase {
    fn options(&self) -> ConvOptions<2> {
        ConvOptions::new_with_padding([self.stride; 2], self.padding, [1, 1], 1)
    }

    fn run(&self, fused: bool) -> OutputAndGradients {
        let device = Device::flex().autodiff();
        let ([inputs, outputs], [height, width]) = (self.channels, self.size);
        let [down, right] = self.kernel;
        let input = tensor(1, [self.batch, inputs, height, width], &device).require_grad();
        let filters = tensor(2, [outputs, inputs, down, right], &device).require_grad();
        let bias = self
            .bias
            .then(|| tensor(3, [outputs], &device).require_grad());
        let convolve = if fused { convolution } else { module::conv2d };
        let output = convolve(input.clone(), filters.clone(), bias.clone(), self.options());
        let weights = tensor(4, output.dims(), &device);
        let gradients = (output.clone() * weights).sum().backward();
        let mut outcome = vec![
            numbers(&output),
            numbers(&input.grad(&gradients).unwrap()),
            numbers(&filters.grad(&gradients).unwrap()),
        ];
        outcome.extend(bias.map(|bias| numbers(&bias.grad(&gradients).unwrap())));
        outcome
    }
}

/// Kernel, stride, padding.
type ConvKind = ([usize; 2], usize, [(usize, usize); 2]);

/// All combinations that the networks use, and some others.
const KINDS: [ConvKind; 17] = [
    ([1, 1], 1, [(0, 0); 2]),
    ([1, 1], 2, [(0, 0); 2]),
    ([1, 1], 1, [(1, 1); 2]),
    ([3, 3], 1, [(0, 0); 2]),
    ([3, 3], 1, [(1, 1); 2]),
    ([3, 3], 2, [(0, 0); 2]),
    ([3, 3], 2, [(1, 1); 2]),
    ([3, 3], 2, [(0, 1); 2]),
    ([3, 3], 1, [(4, 4); 2]),
    ([1, 3], 1, [(0, 0), (1, 1)]),
    ([3, 1], 1, [(1, 1), (0, 0)]),
    ([1, 7], 1, [(0, 0), (3, 3)]),
    ([7, 1], 1, [(3, 3), (0, 0)]),
    ([2, 4], 1, [(0, 1), (1, 2)]),
    ([5, 5], 1, [(2, 2); 2]),
    ([7, 7], 2, [(3, 3); 2]),
    ([7, 7], 2, [(2, 3), (3, 2)]),
];

/// Batch, channels, size: one and several samples, wide and narrow, few and many channels.
const SHAPES: [(usize, [usize; 2], [usize; 2]); 5] = [
    (1, [3, 5], [13, 11]),
    (3, [40, 33], [7, 9]),
    (9, [17, 70], [7, 7]),
    (2, [4, 24], [31, 23]),
    (5, [130, 9], [15, 14]),
];

fn cases() -> impl Iterator<Item = ConvCase> {
    KINDS.iter().flat_map(|&(kernel, stride, padding)| {
        SHAPES.iter().map(move |&(batch, channels, size)| ConvCase {
            batch,
            channels,
            size,
            kernel,
            stride,
            padding,
            bias: batch % 2 == 1,
        })
    })
}

#[test]
fn convolutions_agree_with_burn() {
    for case in cases() {
        assert_close(&case.run(true), &case.run(false), &format!("{case:?}"));
    }
}

#[test]
fn unsupported_convolutions_use_burn() {
    let device = Device::flex();
    let input = tensor(1, [2, 6, 9, 9], &device);
    for (groups, dilation) in [(3, 1), (1, 2)] {
        let filters = tensor(2, [6, 6 / groups, 3, 3], &device);
        let options = ConvOptions::new([1, 1], [1, 1], [dilation; 2], groups);
        let ours = convolution(input.clone(), filters.clone(), None, options.clone());
        let theirs = module::conv2d(input.clone(), filters, None, options);
        assert_eq!(numbers(&ours), numbers(&theirs));
    }
}

#[test]
fn accepts_operands_in_other_layouts() {
    let device = Device::flex();
    let input = tensor(1, [2, 9, 8, 5], &device);
    let filters = tensor(2, [4, 5, 3, 3], &device).flip([0]);
    let turned = || input.clone().permute([0, 3, 1, 2]);
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let ours = convolution(turned(), filters.clone(), None, options.clone());
    let theirs = module::conv2d(turned(), filters, None, options);
    assert_close(&vec![numbers(&ours)], &vec![numbers(&theirs)], "permuted");
    let part = turned().narrow(1, 1, 3);
    assert_eq!(
        numbers(&relu(part.clone())),
        numbers(&activation::relu(part))
    );
}

fn normalized(shape: [usize; 4], with_relu: bool, fused: bool) -> OutputAndGradients {
    let device = Device::flex().autodiff();
    // Far from zero: the variance must not be a difference of large numbers.
    let input = (tensor(1, shape, &device) + 30.0).require_grad();
    let gamma = tensor(2, [shape[1]], &device).require_grad();
    let beta = tensor(3, [shape[1]], &device).require_grad();
    let (output, mean, variance) = if fused {
        let result = batch_norm(
            input.clone(),
            (gamma.clone(), beta.clone()),
            1e-3,
            with_relu,
        );
        (result.output, result.mean, result.variance)
    } else {
        let result = batch_norm_train(input.clone(), gamma.clone(), beta.clone(), 1e-3);
        let output = if with_relu {
            activation::relu(result.output)
        } else {
            result.output
        };
        (output, result.mean, result.variance)
    };
    let gradients = (output.clone() * tensor(4, shape, &device))
        .sum()
        .backward();
    vec![
        numbers(&output),
        numbers(&mean),
        numbers(&variance),
        numbers(&input.grad(&gradients).unwrap()),
        numbers(&gamma.grad(&gradients).unwrap()),
        numbers(&beta.grad(&gradients).unwrap()),
    ]
}

#[test]
fn normalization_agrees_with_burn() {
    for shape in [[1, 3, 5, 7], [4, 5, 9, 9], [3, 2, 33, 40], [8, 7, 3, 3]] {
        for with_relu in [false, true] {
            let [ours, theirs] = [true, false].map(|fused| normalized(shape, with_relu, fused));
            // Far from zero, Burn's sums are less precise.
            for (part, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                let largest = theirs
                    .iter()
                    .fold(0.0f32, |most, value| most.max(value.abs()));
                for (a, b) in ours.iter().zip(theirs) {
                    let apart = (a - b).abs();
                    assert!(
                        apart <= 1e-4 * largest,
                        "{shape:?}, part {part}: {a} is not {b}"
                    );
                }
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let device = Device::flex().autodiff();
    let shape = [2, 3, 4, 5];
    let loss = |input: Tensor<4>| {
        let filters = tensor(2, [4, 3, 3, 3], &device);
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let x = convolution(input, filters, None, options);
        let affine = (tensor(5, [4], &device), tensor(6, [4], &device));
        let x = batch_norm(x, affine, 1e-3, true).output;
        let weights = tensor(4, x.dims(), &device);
        // Smooth around a small step, unlike ReLU alone.
        relu(x + 0.5).powi_scalar(2).mul(weights).sum()
    };
    let input = tensor(1, shape, &device).require_grad();
    let gradients = loss(input.clone()).backward();
    let gradient = numbers(&input.grad(&gradients).unwrap());
    let direction = values(9, gradient.len());
    let along: f32 = gradient.iter().zip(&direction).map(|(a, b)| a * b).sum();
    let moved = |step: f32| {
        let values = values(1, direction.len());
        let values = values
            .iter()
            .zip(&direction)
            .map(|(value, way)| value + step * way);
        let data = TensorData::new(values.collect::<Vec<_>>(), shape);
        f64::from(loss(Tensor::from_data(data, &device)).into_scalar::<f32>())
    };
    let step = 1e-3;
    let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
    let apart = (slope - f64::from(along)).abs();
    assert!(
        apart < 0.02 * slope.abs(),
        "{along} by backpropagation, {slope} by difference"
    );
}

#[test]
fn shared_tensors_are_not_overwritten() {
    let device = Device::flex();
    let input = tensor(1, [2, 3, 4, 5], &device);
    let before = numbers(&input);
    let output = relu(input.clone());
    assert_eq!(numbers(&input), before);
    assert_eq!(numbers(&output), numbers(&activation::relu(input)));
}

#[test]
fn results_are_bit_identical_for_any_number_of_threads() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let convolutions = cases().step_by(3).flat_map(|case| case.run(true));
            let normalizations = normalized([5, 6, 17, 16], true, true);
            let outcome: OutputAndGradients = convolutions.chain(normalizations).collect();
            outcome
        })
    };
    let one = run(1);
    for threads in [1, 2, 3] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

/// Runs two convolutions with normalization and a residual sum; returns the output and the
/// gradients of all inputs.
fn block(device: &Device) -> OutputAndGradients {
    let leaf = |seed, shape: [usize; 4]| tensor::<4>(seed, shape, device).require_grad();
    let affine = |seed| {
        let [gamma, beta] = [seed, seed + 1].map(|seed| tensor(seed, [3], device).require_grad());
        (gamma, beta)
    };
    let options = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let (input, first, second) = (
        leaf(1, [2, 3, 9, 8]),
        leaf(2, [3, 3, 3, 3]),
        leaf(3, [3, 3, 3, 3]),
    );
    let (before, after) = (affine(4), affine(6));
    let x = convolution(input.clone(), first.clone(), None, options());
    let x = batch_norm(x, before.clone(), 1e-3, true).output;
    let y = convolution(x.clone(), second.clone(), None, options());
    let y = batch_norm(y, after.clone(), 1e-3, false).output;
    let output = relu(y.mul_scalar(0.3) + x);
    let weights = tensor(8, output.dims(), device);
    let gradients = (output.clone() * weights).sum().backward();
    let mut outcome = vec![numbers(&output)];
    outcome.extend([input, first, second].map(|t| numbers(&t.grad(&gradients).unwrap())));
    for (gamma, beta) in [before, after] {
        outcome.extend([gamma, beta].map(|t| numbers(&t.grad(&gradients).unwrap())));
    }
    outcome
}

#[test]
fn recomputed_layers_give_the_same_gradients() {
    let device = Device::flex().autodiff();
    assert!(block(&device) == block(&device.clone().gradient_checkpointing()));
}
