//! Property tests: rewriting a random network keeps its outputs.
//!
//! The networks run on ONNX Runtime where `ORT_DYLIB_PATH` is set, else on tract. There are 64 cases
//! for each property, or `PROPTEST_CASES`. A rewrite must apply to a stated share of the cases, so
//! that a test cannot pass without testing it.

#[path = "properties/executor.rs"]
mod executor;
#[path = "properties/generator.rs"]
mod generator;

use std::cell::Cell;
use std::env;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use self::executor::run;
use self::generator::{Choice, Family, Form, RandomNetwork, choices, network};
use crate::float16::to_float16;
use crate::folding::fold_into_convolutions;
use crate::patches::{
    absorb_relu, channels_first, constants_to_initializers, explicit_padding, fold_constants,
    inline_identities, normalize,
};
use crate::surgery::{Filter, burn_momentum, prune, share_strides, stem_weight, widen_filters};
use crate::tensor::{FLOAT, set_values, values};
use crate::tests::GraphBuilder;
use crate::{GraphProto, NodeProto};

/// Operators of a backbone in the forms of PyTorch's exporters.
const BACKBONE: &[Family] = &[
    Family::Conv,
    Family::BatchNorm,
    Family::Relu,
    Family::Binary,
    Family::ConstantOperand,
    Family::Concat,
    Family::Pad,
    Family::Pool,
    Family::Identity,
    Family::ComputedConstant,
];

const fn channels_first_form(families: &'static [Family]) -> Form {
    Form {
        families,
        channels_last: false,
        small_integers: false,
    }
}

const fn channels_last_form(families: &'static [Family]) -> Form {
    Form {
        families,
        channels_last: true,
        small_integers: false,
    }
}

/// How the outputs before and after a rewrite are compared.
#[derive(Clone, Copy)]
enum Comparison {
    Exact,
    /// Within this difference, relative to the largest absolute value, at least 1.
    Within(f32),
}

/// Checks `property` for random choices; it returns whether the rewrite applied, which must be so
/// in at least `min_share` of the cases.
fn check(min_share: f64, property: impl Fn(&[Choice]) -> Result<bool, TestCaseError>) {
    let cases = env::var("PROPTEST_CASES").ok();
    let cases: u32 = cases.map_or(64, |cases| cases.parse().unwrap());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    let applied = Cell::new(0);
    let outcome = runner.run(&choices(), |choices| {
        applied.set(applied.get() + u32::from(property(&choices)?));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let share = f64::from(applied.get()) / f64::from(cases);
    assert!(share >= min_share, "applied to {share} of the cases only");
}

/// Checks that `rewrite` keeps the outputs of networks of a form.
fn keeps_outputs(
    form: Form,
    min_share: f64,
    comparison: Comparison,
    rewrite: impl Fn(&mut GraphProto),
) {
    check(min_share, |choices| {
        let original = network(choices, form);
        let mut graph = original.graph.clone();
        rewrite(&mut graph);
        let applied = graph.node != original.graph.node;
        compare(&original, &graph, comparison)?;
        Ok(applied)
    });
}

/// Compares the outputs of the original network and of `graph`.
fn compare(
    original: &RandomNetwork,
    graph: &GraphProto,
    comparison: Comparison,
) -> Result<(), TestCaseError> {
    let expected = run(&original.graph, original.dims, &original.image);
    let found = run(graph, original.dims, &original.image);
    same(&expected, &found, comparison)
}

fn same(
    (expected_shape, expected): &(Vec<usize>, Vec<f32>),
    (found_shape, found): &(Vec<usize>, Vec<f32>),
    comparison: Comparison,
) -> Result<(), TestCaseError> {
    let fail = |reason: String| Err(TestCaseError::fail(reason));
    if expected_shape != found_shape {
        return fail(format!(
            "shape {found_shape:?} instead of {expected_shape:?}"
        ));
    }
    let largest = expected
        .iter()
        .fold(1_f32, |most, value| most.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let equal = match comparison {
            Comparison::Exact => found.to_bits() == expected.to_bits(),
            Comparison::Within(tolerance) => (found - expected).abs() <= tolerance * largest,
        };
        if !equal {
            return fail(format!("value {at} is {found} instead of {expected}"));
        }
    }
    Ok(())
}

/// Permutes `[1, H, W, C]` to `[1, C, H, W]`.
fn transposed(dims: [usize; 4], values: &[f32]) -> ([usize; 4], Vec<f32>) {
    let [_, height, width, channels] = dims;
    let pixels = height * width;
    let permuted = (0..channels)
        .flat_map(|channel| (0..pixels).map(move |pixel| pixel * channels + channel))
        .map(|at| values[at])
        .collect();
    ([1, channels, height, width], permuted)
}

/// Compares a channels-last network with its channels-first rewrite, for the transposed image.
fn compare_transposed(original: &RandomNetwork, graph: &GraphProto) -> Result<(), TestCaseError> {
    let (shape, expected) = run(&original.graph, original.dims, &original.image);
    let (shape, expected) = transposed(shape.try_into().unwrap(), &expected);
    let (dims, image) = transposed(original.dims, &original.image);
    let found = run(graph, dims, &image);
    same(
        &(shape.to_vec(), expected),
        &found,
        Comparison::Within(1e-4),
    )
}

#[test]
fn storing_and_folding_constants_keeps_outputs() {
    let form = channels_first_form(&[
        Family::ComputedConstant,
        Family::ComputedConstant,
        Family::Conv,
        Family::Relu,
    ]);
    keeps_outputs(form, 0.7, Comparison::Within(1e-6), |graph| {
        constants_to_initializers(graph).unwrap();
        fold_constants(graph).unwrap();
        let constant = |node: &NodeProto| {
            let stored = |name: &String| graph.initializer.iter().any(|t| t.name == *name);
            node.input.iter().all(stored)
        };
        assert!(!graph.node.iter().any(constant), "every constant is folded");
    });
}

#[test]
fn inlining_identities_keeps_outputs() {
    let form = channels_first_form(&[
        Family::Identity,
        Family::Identity,
        Family::Conv,
        Family::Binary,
    ]);
    keeps_outputs(form, 0.7, Comparison::Exact, |graph| {
        inline_identities(graph).unwrap();
    });
}

#[test]
fn explicit_padding_keeps_outputs() {
    let form = channels_first_form(&[
        Family::Pad,
        Family::Relu,
        Family::Pool,
        Family::Conv,
        Family::Concat,
    ]);
    keeps_outputs(form, 0.5, Comparison::Within(1e-5), |graph| {
        explicit_padding(graph).unwrap();
    });
}

#[test]
fn moving_zeros_into_convolutions_and_poolings_keeps_outputs() {
    let into_poolings: &[Family] = &[Family::Pad, Family::Pool, Family::Pool, Family::Relu];
    let into_convolutions: &[Family] = &[Family::Pad, Family::Conv, Family::Concat];
    for families in [into_poolings, into_convolutions] {
        let form = channels_first_form(families);
        check(0.15, |choices| {
            let original = network(choices, form);
            let mut graph = original.graph.clone();
            explicit_padding(&mut graph).unwrap();
            compare(&original, &graph, Comparison::Within(1e-5))?;
            // A `Pad` that moves is removed.
            Ok(graph.node.len() < original.graph.node.len())
        });
    }
}

#[test]
fn putting_channels_first_keeps_outputs() {
    let form = channels_last_form(&[
        Family::Conv,
        Family::BatchNorm,
        Family::Relu,
        Family::Binary,
        Family::ConstantOperand,
        Family::Concat,
        Family::Pad,
        Family::Pool,
    ]);
    check(0.5, |choices| {
        let original = network(choices, form);
        let mut graph = original.graph.clone();
        declare_channels_last(&mut graph);
        channels_first(&mut graph).unwrap();
        compare_transposed(&original, &graph)?;
        let transposes = |graph: &GraphProto| {
            let nodes = graph.node.iter();
            nodes.filter(|node| node.op_type == "Transpose").count()
        };
        assert_eq!(transposes(&graph), 0);
        Ok(transposes(&original.graph) > 0)
    });
}

#[test]
fn putting_channels_first_keeps_outputs_of_operators_that_need_the_original_layout() {
    let form = channels_last_form(&[
        Family::Conv,
        Family::Other,
        Family::Reshape,
        Family::Binary,
        Family::ConstantOperand,
    ]);
    let refused = Cell::new(0);
    check(0.2, |choices| {
        let original = network(choices, form);
        let mut graph = original.graph.clone();
        declare_channels_last(&mut graph);
        // A convolution after such an operator is refused.
        if channels_first(&mut graph).is_err() {
            assert_eq!(graph.node, original.graph.node);
            refused.set(refused.get() + 1);
            return Ok(false);
        }
        let last = &graph.output[0].name;
        let restored = graph.node.iter().any(|node| node.op_type == "Transpose");
        // The output has the original layout if its producer could not be rewritten.
        let (dims, image) = transposed(original.dims, &original.image);
        let found = run(&graph, dims, &image);
        let expected = run(&original.graph, original.dims, &original.image);
        let shape = expected.0.clone().try_into().unwrap();
        let permuted = transposed(shape, &expected.1);
        let permuted = (permuted.0.to_vec(), permuted.1);
        let first = same(&permuted, &found, Comparison::Within(1e-4));
        let unchanged = same(&expected, &found, Comparison::Within(1e-4));
        first
            .or(unchanged)
            .map_err(|error| TestCaseError::fail(format!("{last}: {error}")))?;
        Ok(restored)
    });
    assert!(refused.get() > 0, "some networks are refused");
}

fn declare_channels_last(graph: &mut GraphProto) {
    let declared = GraphBuilder::new().channels_last().graph("image");
    graph.input[0] = declared.input[0].clone();
}

#[test]
fn normalizing_keeps_the_feature_map() {
    for form in [channels_first_form(BACKBONE), channels_last_form(BACKBONE)] {
        check(0.9, |choices| {
            let original = network(choices, form);
            let mut graph = with_classifier(&original, form);
            if form.channels_last {
                declare_channels_last(&mut graph);
            }
            normalize(&mut graph).unwrap();
            if form.channels_last {
                compare_transposed(&original, &graph)?;
            } else {
                compare(&original, &graph, Comparison::Within(1e-4))?;
            }
            let pooled = |node: &NodeProto| {
                matches!(
                    &*node.op_type,
                    "GlobalAveragePool" | "Flatten" | "Transpose"
                )
            };
            Ok(!graph.node.iter().any(pooled))
        });
    }
}

/// Appends global pooling and flattening to the feature map.
fn with_classifier(original: &RandomNetwork, form: Form) -> GraphProto {
    let mut graph = original.graph.clone();
    let features = graph.output[0].name.clone();
    let mut builder = GraphBuilder::new();
    let pooled = if form.channels_last {
        builder = builder
            .node("Transpose", &[&features], "first")
            .with(crate::tests::with_ints("perm", &[0, 3, 1, 2]));
        "first"
    } else {
        &features
    };
    let tail = builder
        .node("GlobalAveragePool", &[pooled], "pooled")
        .node("Flatten", &["pooled"], "flat")
        .graph("flat");
    graph.node.extend(tail.node);
    graph.output = tail.output;
    graph
}

#[test]
fn folding_into_convolutions_keeps_outputs() {
    let form = channels_first_form(&[
        Family::Conv,
        Family::BatchNorm,
        Family::BatchNorm,
        Family::ConstantOperand,
    ]);
    check(0.15, |choices| {
        let original = network(choices, form);
        let mut graph = original.graph.clone();
        let folded = fold_into_convolutions(&mut graph).unwrap();
        compare(&original, &graph, Comparison::Within(1e-4))?;
        Ok(folded > 0)
    });
}

#[test]
fn float16_is_exact_for_small_integers() {
    let form = Form {
        families: &[
            Family::Conv,
            Family::Relu,
            Family::ConstantOperand,
            Family::Concat,
            Family::Pad,
        ],
        channels_last: false,
        small_integers: true,
    };
    check(0.5, |choices| {
        let original = network(choices, form);
        // Beyond 2048 float16 does not hold every integer.
        let (_, outputs) = run(&absolute(&original.graph), original.dims, &{
            original
                .image
                .iter()
                .map(|pixel| pixel.abs())
                .collect::<Vec<_>>()
        });
        if outputs.iter().any(|&value| value > 2048.0) {
            return Ok(false);
        }
        let mut graph = original.graph.clone();
        let input = graph.input[0].type_.mut_or_insert_default();
        input.mut_tensor_type().elem_type = FLOAT;
        to_float16(&mut graph).unwrap();
        compare(&original, &graph, Comparison::Within(0.0))?;
        Ok(graph.node.len() > original.graph.node.len())
    });
}

/// Returns the graph with the absolute values of all weights, whose outputs bound all sums.
fn absolute(graph: &GraphProto) -> GraphProto {
    let mut graph = graph.clone();
    for tensor in &mut graph.initializer {
        if tensor.data_type == FLOAT {
            let absolute: Vec<f32> = values(tensor).unwrap().iter().map(|v| v.abs()).collect();
            set_values(tensor, &absolute);
        }
    }
    for node in graph.node.iter_mut().filter(|node| node.op_type == "Sub") {
        node.op_type = "Add".into();
    }
    graph
}

#[test]
fn sharing_strides_keeps_outputs_bit_identical() {
    let form = channels_first_form(&[
        Family::StridedPair,
        Family::StridedPair,
        Family::Conv,
        Family::Relu,
    ]);
    keeps_outputs(form, 0.7, Comparison::Exact, share_strides);
}

#[test]
fn pruning_keeps_outputs_bit_identical() {
    keeps_outputs(channels_first_form(BACKBONE), 0.3, Comparison::Exact, prune);
}

#[test]
fn burn_momentum_does_not_affect_inference() {
    let form = channels_first_form(&[Family::BatchNorm, Family::Conv, Family::Relu]);
    keeps_outputs(form, 0.7, Comparison::Exact, burn_momentum);
}

#[test]
fn absorbed_relus_are_those_after_the_returned_scales() {
    let form = channels_first_form(&[Family::BatchNorm, Family::Relu]);
    keeps_outputs(form, 0.2, Comparison::Exact, |graph| {
        let scales = absorb_relu(graph);
        let nodes = std::mem::take(&mut graph.node);
        for mut node in nodes {
            let absorbs = node.op_type == "BatchNormalization" && scales.contains(&node.input[1]);
            if !absorbs {
                graph.node.push(node);
                continue;
            }
            let output = std::mem::take(&mut node.output[0]);
            node.output[0] = format!("{output}/normalized");
            let mut relu = NodeProto::new();
            relu.op_type = "Relu".into();
            relu.input.push(node.output[0].clone());
            relu.output.push(output);
            graph.node.extend([node, relu]);
        }
    });
}

#[test]
fn a_stem_widened_by_zeros_ignores_the_new_channel() {
    let form = channels_first_form(&[Family::Conv, Family::Relu, Family::BatchNorm]);
    check(0.1, |choices| {
        let original = network(choices, form);
        let mut graph = original.graph.clone();
        prune(&mut graph);
        let Ok(stem) = stem_weight(&graph) else {
            return Ok(false);
        };
        let conv = graph
            .node
            .iter_mut()
            .find(|node| node.input.get(1) == Some(&stem));
        if crate::attributes::int(conv.unwrap(), "group", 1) != 1 {
            return Ok(false);
        }
        let tensor = graph
            .initializer
            .iter_mut()
            .find(|t| t.name == stem)
            .unwrap();
        let plane = (tensor.dims[2] * tensor.dims[3]) as usize;
        let channels = [Filter::Red, Filter::Green, Filter::Blue, Filter::Zero];
        let widened = widen_filters(&values(tensor).unwrap(), plane, &channels);
        tensor.dims[1] = 4;
        set_values(tensor, &widened);
        let [n, channels, height, width] = original.dims;
        let mut image = original.image.clone();
        image.extend((0..height * width).map(|at| at as f32 / 7.0));
        let found = run(&graph, [n, channels + 1, height, width], &image);
        let expected = run(&original.graph, original.dims, &original.image);
        same(&expected, &found, Comparison::Within(1e-5))?;
        Ok(true)
    });
}
