//! Compares with sums in float64 over all kernel positions, and one, two and three threads.

use rayon::ThreadPoolBuilder;

use crate::{ConvolutionShape, Kernels};

fn values(seed: usize, length: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 5003.0 - 1.0;
    (0..length).map(value).collect()
}

/// Calls `visit` with the indices of output, input and filter of each product of a convolution.
fn for_each_product(shape: &ConvolutionShape, mut visit: impl FnMut(usize, usize, usize)) {
    let [height, width] = shape.output_size;
    for sample in 0..shape.batch {
        for output in 0..shape.outputs {
            for position in 0..height * width {
                let to = (sample * shape.outputs + output) * height * width + position;
                for depth in 0..shape.inputs * shape.taps() {
                    let (channel, tap) = (depth / shape.taps(), depth % shape.taps());
                    let read = |axis: usize, at: usize, tap: usize| {
                        (at * shape.stride[axis] + tap)
                            .checked_sub(shape.pad[axis])
                            .filter(|at| *at < shape.input_size[axis])
                    };
                    let y = read(0, position / width, tap / shape.kernel[1]);
                    let x = read(1, position % width, tap % shape.kernel[1]);
                    if let (Some(y), Some(x)) = (y, x) {
                        let plane = (sample * shape.inputs + channel) * shape.input_plane();
                        let from = plane + y * shape.input_size[1] + x;
                        visit(to, from, output * shape.inputs * shape.taps() + depth);
                    }
                }
            }
        }
    }
}

/// Returns the output, the gradient of the input and the gradient of the filters.
fn expected(shape: &ConvolutionShape, [input, filters, gradient]: &[Vec<f32>; 3]) -> [Vec<f64>; 3] {
    let mut results = [gradient, input, filters].map(|values| vec![0.0; values.len()]);
    for_each_product(shape, |to, from, weight| {
        let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
        results[0][to] += product(input[from], filters[weight]);
        results[1][from] += product(gradient[to], filters[weight]);
        results[2][weight] += product(gradient[to], input[from]);
    });
    let plane = shape.output_plane();
    let bias = values(4, shape.outputs);
    for (at, value) in results[0].iter_mut().enumerate() {
        *value += f64::from(bias[at / plane % shape.outputs]);
    }
    results
}

fn computed(
    kernels: Kernels,
    shape: &ConvolutionShape,
    [input, filters, gradient]: &[Vec<f32>; 3],
) -> [Vec<f32>; 3] {
    // Not zero, to find values that are not written.
    let mut results = [gradient, input, filters].map(|values| vec![9.0; values.len()]);
    let bias = values(4, shape.outputs);
    kernels.convolve(shape, (input, filters), Some(&bias), &mut results[0]);
    kernels.input_gradient(shape, (filters, gradient), &mut results[1]);
    kernels.filters_gradient(shape, (input, gradient), &mut results[2]);
    results
}

fn operands(shape: &ConvolutionShape) -> [Vec<f32>; 3] {
    let output = shape.batch * shape.outputs * shape.output_plane();
    let input = shape.batch * shape.inputs * shape.input_plane();
    let filters = shape.outputs * shape.inputs * shape.taps();
    [values(1, input), values(2, filters), values(3, output)]
}

/// Kernel, stride, padding before and after.
type WindowKind = ([usize; 2], usize, [(usize, usize); 2]);

const KINDS: [WindowKind; 14] = [
    ([1, 1], 1, [(0, 0); 2]),
    ([1, 1], 2, [(0, 0); 2]),
    ([1, 1], 1, [(1, 1); 2]),
    ([3, 3], 1, [(0, 0); 2]),
    ([3, 3], 1, [(1, 1); 2]),
    ([3, 3], 2, [(0, 0); 2]),
    ([3, 3], 2, [(1, 1); 2]),
    ([3, 3], 2, [(0, 1); 2]),
    ([3, 3], 1, [(4, 4); 2]),
    ([1, 7], 1, [(0, 0), (3, 3)]),
    ([7, 1], 1, [(3, 3), (0, 0)]),
    ([2, 4], 1, [(0, 1), (1, 2)]),
    ([7, 7], 2, [(3, 3); 2]),
    ([1, 3], 2, [(0, 0), (1, 1)]),
];

/// Batch, channels, size: rows shorter and longer than a vector, few and many channels.
const SIZES: [(usize, [usize; 2], [usize; 2]); 7] = [
    (1, [3, 5], [13, 11]),
    (3, [40, 33], [7, 9]),
    (9, [16, 24], [3, 3]),
    (2, [4, 24], [31, 37]),
    (2, [300, 9], [7, 8]),
    (4, [8, 70], [1, 50]),
    (1, [72, 64], [20, 19]),
];

fn shapes() -> impl Iterator<Item = ConvolutionShape> {
    KINDS.iter().flat_map(|&(kernel, stride, padding)| {
        SIZES
            .iter()
            .filter_map(move |&(batch, [inputs, outputs], input_size)| {
                let mut output_size = [0; 2];
                for axis in 0..2 {
                    let padded = input_size[axis] + padding[axis].0 + padding[axis].1;
                    output_size[axis] = padded.checked_sub(kernel[axis])? / stride + 1;
                }
                Some(ConvolutionShape {
                    batch,
                    inputs,
                    outputs,
                    input_size,
                    output_size,
                    kernel,
                    stride: [stride; 2],
                    pad: [padding[0].0, padding[1].0],
                })
            })
    })
}

/// Returns the kernels; says so and returns `None` on a processor without the instructions, where
/// no other code of this crate runs.
fn kernels() -> Option<Kernels> {
    let kernels = Kernels::detect();
    if kernels.is_none() {
        eprintln!("skipped: no AVX-512");
    }
    kernels
}

#[test]
fn agrees_with_float64_sums() {
    let Some(kernels) = kernels() else { return };
    for shape in shapes() {
        let operands = operands(&shape);
        let ours = computed(kernels, &shape, &operands);
        let theirs = expected(&shape, &operands);
        for (part, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let largest = theirs
                .iter()
                .fold(0.0f64, |most, value| most.max(value.abs()));
            for (ours, theirs) in ours.iter().zip(theirs) {
                let apart = (f64::from(*ours) - theirs).abs();
                assert!(
                    apart <= 2e-6 * largest,
                    "{shape:?}, part {part}: {ours} is not {theirs}"
                );
            }
        }
    }
}

#[test]
fn results_are_bit_identical_for_any_number_of_threads() {
    let Some(kernels) = kernels() else { return };
    let run = |threads| {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let outcome = |shape| computed(kernels, &shape, &operands(&shape));
        pool.install(|| shapes().map(outcome).collect::<Vec<_>>())
    };
    let one = run(1);
    for threads in [2, 3] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
#[should_panic(expected = "do not fit")]
fn slices_of_other_lengths_are_refused() {
    let shape = shapes().next().unwrap();
    shape.check(1, 2, 3);
}
