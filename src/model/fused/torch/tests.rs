//! Compares the kernels on libtorch's CPU with Burn's operations on flex, and collected updates of
//! parameters with tensor operations.

use burn::tensor::module::{self, batch_norm_train};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::{AdamConstants, adadelta, adam, collect_updates, lerp, sgd, upload};
use crate::model::fused::{batch_norm, convolution, relu};

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

/// Asserts that each part differs by at most `tolerance` of its largest value.
fn assert_close(ours: &[Vec<f32>], theirs: &[Vec<f32>], tolerance: f32, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (part, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours.len(), theirs.len(), "{what}, part {part}");
        let largest = theirs.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let pairs = ours.iter().zip(theirs);
        let apart = pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(
            apart <= tolerance * largest,
            "{what}, part {part}: {apart:e} of {largest}"
        );
    }
}

/// Output and gradients of a convolution, by our kernels on libtorch or Burn's on flex.
fn convolved(
    options: &ConvOptions<2>,
    kernel: [usize; 2],
    bias: bool,
    ours: bool,
) -> Vec<Vec<f32>> {
    let device = if ours {
        Device::libtorch().autodiff()
    } else {
        Device::flex().autodiff()
    };
    let input = tensor(1, [3, 6, 13, 11], &device).require_grad();
    let shape = [8, 6 / options.groups, kernel[0], kernel[1]];
    let filters = tensor(2, shape, &device).require_grad();
    let bias = bias.then(|| tensor(3, [8], &device).require_grad());
    let convolve = if ours { convolution } else { module::conv2d };
    let output = convolve(
        input.clone(),
        filters.clone(),
        bias.clone(),
        options.clone(),
    );
    let weights = tensor(4, output.dims(), &device);
    let gradients = (output.clone() * weights).sum().backward();
    let mut found = vec![
        numbers(&output),
        numbers(&input.grad(&gradients).unwrap()),
        numbers(&filters.grad(&gradients).unwrap()),
    ];
    found.extend(bias.map(|bias| numbers(&bias.grad(&gradients).unwrap())));
    found
}

#[test]
fn convolutions_agree_with_burn_on_flex() {
    let paddings = [
        [(0, 0), (0, 0)],
        [(1, 1), (1, 1)],
        [(0, 1), (2, 0)],
        [(3, 2), (2, 3)],
    ];
    for (kernel, stride) in [
        ([1, 1], 1),
        ([3, 3], 1),
        ([3, 3], 2),
        ([1, 3], 1),
        ([5, 2], 2),
    ] {
        for (groups, dilation) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            for padding in paddings {
                let options =
                    ConvOptions::new_with_padding([stride; 2], padding, [dilation; 2], groups);
                let bias = padding[0].0 == 0;
                let [ours, theirs] =
                    [true, false].map(|ours| convolved(&options, kernel, bias, ours));
                assert_close(&ours, &theirs, 1e-5, &format!("{kernel:?} {options:?}"));
            }
        }
    }
}

/// Output, statistics and gradients of batch normalization.
fn normalized(shape: [usize; 4], with_relu: bool, ours: bool) -> Vec<Vec<f32>> {
    let device = if ours {
        Device::libtorch().autodiff()
    } else {
        Device::flex().autodiff()
    };
    let input = (tensor(1, shape, &device) + 3.0).require_grad();
    let gamma = tensor(2, [shape[1]], &device).require_grad();
    let beta = tensor(3, [shape[1]], &device).require_grad();
    let affine = (gamma.clone(), beta.clone());
    let (output, mean, variance) = if ours {
        let result = batch_norm(input.clone(), affine, 1e-3, with_relu);
        (result.output, result.mean, result.variance)
    } else {
        let result = batch_norm_train(input.clone(), affine.0, affine.1, 1e-3);
        let output = result.output;
        let output = if with_relu {
            activation::relu(output)
        } else {
            output
        };
        (output, result.mean, result.variance)
    };
    let weights = tensor(4, shape, &device);
    let gradients = (output.clone() * weights).sum().backward();
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
fn normalizations_agree_with_burn_on_flex() {
    for shape in [[1, 3, 5, 7], [4, 5, 9, 9], [8, 7, 3, 3]] {
        for with_relu in [false, true] {
            let [ours, theirs] = [true, false].map(|ours| normalized(shape, with_relu, ours));
            assert_close(&ours, &theirs, 1e-4, &format!("{shape:?} {with_relu}"));
        }
    }
}

/// Gradients of two convolutions with normalization, ReLU and a residual sum.
fn block(device: &Device) -> Vec<Vec<f32>> {
    let leaf = |seed, shape: [usize; 4]| tensor::<4>(seed, shape, device).require_grad();
    let affine = || {
        let vector = |seed| tensor::<1>(seed, [3], device).require_grad();
        (vector(4), vector(5))
    };
    let options = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let operands = [
        leaf(1, [2, 3, 9, 8]),
        leaf(2, [3, 3, 3, 3]),
        leaf(3, [3, 3, 3, 3]),
    ];
    let [input, first, second] = operands.clone();
    let x = convolution(input, first, None, options());
    let x = batch_norm(x, affine(), 1e-3, true).output;
    let y = convolution(x.clone(), second, None, options());
    let y = batch_norm(y, affine(), 1e-3, false).output;
    let output = relu(y + x);
    let weights = tensor(8, output.dims(), device);
    let gradients = (output.clone() * weights).sum().backward();
    let mut found = vec![numbers(&output)];
    found.extend(operands.map(|leaf| numbers(&leaf.grad(&gradients).unwrap())));
    found
}

#[test]
fn recomputed_layers_give_the_same_gradients() {
    let device = Device::libtorch().autodiff();
    assert!(block(&device) == block(&device.clone().gradient_checkpointing()));
    assert_close(
        &block(&device),
        &block(&Device::flex().autodiff()),
        1e-4,
        "flex",
    );
}

#[test]
fn shared_tensors_are_not_overwritten() {
    let device = Device::libtorch();
    let input = tensor(1, [2, 3, 4, 5], &device);
    let before = numbers(&input);
    assert_eq!(
        numbers(&relu(input.clone())),
        numbers(&activation::relu(input.clone()))
    );
    let moved = sgd(input.clone(), tensor(2, [2, 3, 4, 5], &device), 0.5);
    assert_ne!(numbers(&moved), before);
    assert_eq!(numbers(&input), before);
}

#[test]
fn upload_copies_the_values() {
    let values = values(1, 24);
    let device = Device::libtorch();
    let tensor = upload(&values, [2, 3, 4], &device).unwrap();
    assert_eq!(
        (tensor.dims(), numbers(&tensor)),
        ([2, 3, 4], values.clone())
    );
    assert!(upload(&values, [24], &Device::flex()).is_none());
    let device = device.autodiff().gradient_checkpointing();
    let tensor = upload(&values, [24], &device).unwrap();
    assert_eq!(tensor.device(), device);
}

/// Takes three steps with each rule on two parameters, by this module or by tensor operations.
fn updated(collected: bool) -> Vec<Vec<f32>> {
    let device = Device::libtorch();
    let shapes = [[70, 300], [3, 5]];
    let start = |seed: usize| shapes.map(|shape| tensor::<2>(seed, shape, &device));
    let zeros = || shapes.map(|shape| Tensor::<2>::zeros(shape, &device));
    let [mut ada, mut adam_values, mut plain, mut average] = [1, 2, 3, 4].map(start);
    let (mut squares, mut changes) = (zeros(), zeros());
    let (mut first, mut second) = (zeros(), zeros());
    let constants = AdamConstants {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
    };
    for step in 1..=3 {
        let gradients = start(10 + step);
        let mut one_step = || {
            for i in 0..2 {
                let gradient = gradients[i].clone();
                if collected {
                    let averages = [squares[i].clone(), changes[i].clone()];
                    let constants = (0.7, 0.9, 1e-6);
                    let (value, [s, c]) =
                        adadelta(ada[i].clone(), gradient.clone(), averages, constants);
                    (ada[i], squares[i], changes[i]) = (value, s, c);
                } else {
                    let square = squares[i].clone() * 0.9 + gradient.clone().square() * 0.1;
                    let root = |x: Tensor<2>| x.add_scalar(1e-6).sqrt();
                    let change = root(changes[i].clone()) / root(square.clone()) * gradient.clone();
                    changes[i] = changes[i].clone() * 0.9 + change.clone().square() * 0.1;
                    squares[i] = square;
                    ada[i] = ada[i].clone() - change * 0.7;
                }
                if collected {
                    let moments = [first[i].clone(), second[i].clone()];
                    let (value, [m, v]) = adam(
                        adam_values[i].clone(),
                        gradient.clone(),
                        moments,
                        (0.01, constants, step),
                    );
                    (adam_values[i], first[i], second[i]) = (value, m, v);
                    plain[i] = sgd(plain[i].clone(), gradient.clone(), 0.1);
                    average[i] = lerp(average[i].clone(), gradient, 0.3);
                } else {
                    first[i] = first[i].clone() * 0.9 + gradient.clone() * 0.1;
                    second[i] = second[i].clone() * 0.999 + gradient.clone().square() * 0.001;
                    let power = step as i32;
                    let mean = first[i].clone() / (1.0 - 0.9f64.powi(power));
                    let square = second[i].clone() / (1.0 - 0.999f64.powi(power));
                    let change = mean / (square.sqrt() + 1e-8);
                    adam_values[i] = adam_values[i].clone() - change * 0.01;
                    plain[i] = plain[i].clone() - gradient.clone() * 0.1;
                    average[i] = average[i].clone() * 0.7 + gradient * 0.3;
                }
            }
        };
        if collected {
            collect_updates(one_step);
        } else {
            one_step();
        }
    }
    [
        ada,
        adam_values,
        plain,
        average,
        squares,
        changes,
        first,
        second,
    ]
    .iter()
    .flatten()
    .map(numbers)
    .collect()
}

#[test]
fn collected_updates_agree_with_tensor_operations() {
    assert_close(&updated(true), &updated(false), 1e-5, "updates");
}
