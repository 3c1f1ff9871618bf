//! Compares convolutions in several portions and parts with undivided ones, on the default adapter.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{DispatchDevice, read_sync};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, DeviceKind, DeviceType, Shape, TensorData};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};

use super::convolve::{convolve, filters_gradient, input_gradient};
use super::rule::DeviceTraits;

/// Returns the default adapter, if there is one.
fn adapter() -> Option<CubeDevice> {
    if Device::enumerate(DeviceType::Wgpu)
        .into_iter()
        .next()
        .is_none()
    {
        assert!(std::env::var_os("CI").is_none(), "no adapter");
        println!("skipped: no adapter");
        return None;
    }
    match Device::wgpu(DeviceKind::DefaultDevice).as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.clone()),
        other => panic!("{other:?} is not a GPU"),
    }
}

fn values(seed: usize, shape: &[usize], device: &CubeDevice) -> CubeTensor {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 5003.0 - 1.0;
    let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
    CubeBackend::float_from_data(TensorData::new(values, shape.to_vec()), device)
}

fn numbers(tensor: CubeTensor) -> Vec<f32> {
    read_sync(CubeBackend::float_into_data(tensor))
        .unwrap()
        .iter::<f32>()
        .collect()
}

/// Returns the output, and the gradients of input and filters.
fn run(kernel: usize, stride: usize, traits: &DeviceTraits, device: &CubeDevice) -> [Vec<f32>; 3] {
    let options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1, 1], 1);
    let (input, filters) = ([7, 8, 16, 16], [12, 8, kernel, kernel]);
    let side = 16 / stride;
    let tensor = |seed, shape: &[usize]| values(seed, shape, device);
    let gradient = || tensor(3, &[7, 12, side, side]);
    let output = convolve(tensor(1, &input), tensor(2, &filters), &options, traits);
    let shape = Shape::from(input.to_vec());
    let of_input = input_gradient(gradient(), tensor(2, &filters), &shape, &options, traits);
    let shape = Shape::from(filters.to_vec());
    let of_filters = filters_gradient(gradient(), tensor(1, &input), &shape, &options, traits);
    [output, of_input, of_filters].map(numbers)
}

#[test]
fn portions_and_parts_on_a_gpu_do_not_change_the_result() {
    let Some(device) = adapter() else { return };
    let whole = DeviceTraits {
        matrix_instructions: false,
        processors: 1,
        largest_buffer: 1 << 30,
    };
    let divided = DeviceTraits {
        processors: 64,
        largest_buffer: 40_000,
        ..whole
    };
    for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
        let expected = run(kernel, stride, &whole, &device);
        let found = run(kernel, stride, &divided, &device);
        for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let scale = expected
                .iter()
                .fold(0.0_f32, |most, value| most.max(value.abs()));
            assert!(scale > 0.0);
            for (a, b) in found.iter().zip(expected) {
                let apart = (a - b).abs();
                assert!(
                    apart <= 1e-5 * scale,
                    "{kernel}, {stride}, part {part}: {a}, {b}"
                );
            }
        }
    }
}
