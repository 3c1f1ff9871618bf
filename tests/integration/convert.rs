//! Conversion: the right weights in the right place, and nothing else accepted.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use rgby::graph::surgery::{Stem, drop_classifier};
use rgby::graph::{Message, ModelProto, read, tensor::values};
use rgby::model::{Arch, Classifier, ModelConfig, convert, random_export};

use crate::support::{assert_refused, ort_library, run, skipped};

const NETWORKS: [(Arch, u32); 2] = [(Arch::ResNet50, 64), (Arch::InceptionResNetV2, 139)];

/// Mean over height and width of the last feature map, `[N, F]`, by the engine behind `ort`.
fn pooled_by_ort(
    environment: &Environment,
    export: &ModelProto,
    size: usize,
) -> (Vec<f32>, Vec<f32>) {
    let mut export = export.clone();
    drop_classifier(export.graph.mut_or_insert_default()).unwrap();
    let bytes = export.write_to_bytes().unwrap();
    let mut session = Session::builder(environment)
        .unwrap()
        .commit_from_memory(&bytes)
        .unwrap();
    let images = images(size, 3);
    let input = TensorRef::from_array_view(([2, 3, size, size], images.as_slice())).unwrap();
    let outputs = session.run(ort::inputs![input]).unwrap();
    let (shape, features) = outputs[0].try_extract_tensor::<f32>().unwrap();
    let area = (shape[2] * shape[3]) as usize;
    let pooled = features
        .chunks(area)
        .map(|map| map.iter().sum::<f32>() / area as f32)
        .collect();
    (images, pooled)
}

/// Two images of `channels` channels; the first three are the same whatever their number.
fn images(size: usize, channels: usize) -> Vec<f32> {
    let plane = size * size;
    (0..2)
        .flat_map(|image| (0..channels * plane).map(move |i| (image, i)))
        .map(|(image, i)| (((i + image * 31) * 7919 % 10_007) as f32 / 5003.0) - 1.0)
        .collect()
}

/// The process's engine: ONNX Runtime if it is there, else tract.
fn environment() -> Environment {
    if let Some(library) = ort_library() {
        return ort::init_from(library).unwrap().build().unwrap();
    }
    skipped("ONNX Runtime is not installed; features are compared with tract's");
    ort::set_api(ort_tract::api());
    ort::init().build().unwrap()
}

#[test]
fn yellow_is_silent_and_the_features_are_the_originals() {
    let environment = environment();
    for (arch, size) in NETWORKS {
        let export = random_export(arch, 7).unwrap();
        let side = size as usize;
        let (rgb, expected) = pooled_by_ort(&environment, &export, side);
        let device = Device::flex();
        let fresh = Classifier::new(&ModelConfig::new(arch, size), 0, &device);
        let (classifier, report) = convert(export, arch, Stem::Zero, fresh).unwrap();
        assert_eq!(report.widened.1[1], 4);

        // The same RGB under a yellow that is anything but silent.
        let plane = side * side;
        let rgby: Vec<f32> = rgb
            .chunks(3 * plane)
            .flat_map(|image| {
                image
                    .iter()
                    .copied()
                    .chain((0..plane).map(|i| (i % 17) as f32))
            })
            .collect();
        let input = TensorData::new(rgby, [2, 4, side, side]);
        let features = classifier
            .features(Tensor::from_data(input, &device))
            .into_data();
        let largest = expected
            .iter()
            .fold(0.0_f32, |largest, v| largest.max(v.abs()));
        assert!(largest > 0.1, "the features vanish: {largest}");
        let difference = features
            .iter::<f32>()
            .zip(&expected)
            .fold(0.0_f32, |largest, (a, b)| largest.max((a - b).abs()));
        assert!(
            difference <= 1e-4 * largest,
            "{}: {difference:e} of {largest}",
            arch.name()
        );
    }
}

/// Float initializers by name.
fn weights(path: &Path) -> HashMap<String, Vec<f32>> {
    let model = read(path).unwrap();
    let floats = model
        .graph
        .initializer
        .iter()
        .filter(|tensor| tensor.data_type == 1);
    floats
        .map(|tensor| (tensor.name.clone(), values(tensor).unwrap()))
        .collect()
}

#[test]
fn convert_and_export_keep_every_backbone_weight() {
    let dir = tempfile::tempdir().unwrap();
    for (arch, stem) in [
        (Arch::ResNet50, "conv1.weight"),
        (Arch::InceptionResNetV2, "conv2d_1a.conv.weight"),
    ] {
        let source = dir.path().join("source.onnx");
        let bytes = random_export(arch, 3).unwrap().write_to_bytes().unwrap();
        fs::write(&source, bytes).unwrap();
        let name = arch.name();
        let args = format!("convert --arch {name} --onnx source.onnx --out {name}");
        assert_eq!(run(dir.path(), &args).code, Some(0));
        let args = format!("export --engine tract --from {name} --out {name}.onnx");
        let exported = run(dir.path(), &args);
        assert_eq!(exported.code, Some(0), "{exported:?}");

        let (before, after) = (
            weights(&source),
            weights(&dir.path().join(format!("{name}.onnx"))),
        );
        let mut same = 0;
        for (name, before) in &before {
            if name.starts_with("fc.") || name.starts_with("classif.") {
                continue;
            }
            let after = &after[&format!("backbone.{name}")];
            if name == stem {
                assert_eq!(after.len(), before.len() / 3 * 4, "{name}");
            } else {
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(after), bits(before), "{name}");
                same += 1;
            }
        }
        assert_eq!(same, arch.skeleton().unwrap().1.len() - 1);
    }
}

#[test]
fn what_is_not_the_network_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut other = random_export(Arch::ResNet50, 0).unwrap();
    fs::write(path.join("text.onnx"), "this is not an ONNX file").unwrap();
    fs::write(path.join("resnet.onnx"), other.write_to_bytes().unwrap()).unwrap();
    fs::write(path.join("file"), "").unwrap();
    // One convolution with another stride, deep inside.
    let graph = other.graph.mut_or_insert_default();
    let node = graph
        .node
        .iter_mut()
        .filter(|node| node.op_type == "Conv")
        .nth(20)
        .unwrap();
    let name = node.name.clone();
    let strides = node
        .attribute
        .iter_mut()
        .find(|attribute| attribute.name == "strides");
    strides.unwrap().ints = vec![3, 3];
    fs::write(path.join("stride.onnx"), other.write_to_bytes().unwrap()).unwrap();
    // A weight that is shorter than its shape.
    let mut short = random_export(Arch::ResNet50, 0).unwrap();
    let tensor = &mut short.graph.mut_or_insert_default().initializer[5];
    tensor.raw_data = tensor.raw_data.slice(..8);
    let tensor = tensor.name.clone();
    fs::write(path.join("short.onnx"), short.write_to_bytes().unwrap()).unwrap();

    assert_refused(
        path,
        &[
            (
                "convert --arch resnet50 --onnx text.onnx --out x",
                &["text.onnx", "not an ONNX model"],
            ),
            (
                "convert --arch resnet50 --onnx none.onnx --out x",
                &["none.onnx", "cannot be read"],
            ),
            (
                "convert --arch inception-resnet-v2 --onnx resnet.onnx --out x",
                &[
                    "resnet.onnx",
                    "expected Conv",
                    "[32, 3, 3, 3]",
                    "/conv1/Conv",
                ],
            ),
            (
                "convert --arch resnet50 --onnx stride.onnx --out x",
                &["stride.onnx", "strides [3, 3]", &name],
            ),
            (
                "convert --arch resnet50 --onnx short.onnx --out x",
                &["short.onnx", &tensor, "bytes"],
            ),
            (
                "convert --arch resnet50 --onnx resnet.onnx --out file",
                &["file is a file", "--out"],
            ),
            (
                "convert --arch baseline --onnx resnet.onnx --out x",
                &["baseline", "no pretrained"],
            ),
        ],
    );
}
