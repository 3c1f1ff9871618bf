//! Conversion copies each weight to its place and rejects other networks.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use rgby::graph::patches::drop_classifier;
use rgby::graph::surgery::Filter;
use rgby::graph::{ModelProto, read, tensor::values};
use rgby::model::{Arch, Classifier, ModelConfig, Pretrained, random_export};

use crate::onnx_support::{fold_batch_norms, pooled_features, relative_difference};
use crate::support::{assert_refused, json, must, write_model};

const NETWORKS: [(Arch, u32); 2] = [(Arch::ResNet50, 64), (Arch::InceptionResNetV2, 139)];

/// Returns an RGB batch and the mean over height and width of the last feature map, `[N, F]`, as
/// computed by the engine behind `ort`.
fn pooled_by_ort(export: &ModelProto, size: usize) -> (Vec<f32>, Vec<f32>) {
    let mut export = export.clone();
    drop_classifier(export.graph.mut_or_insert_default()).unwrap();
    let images = images(size, 3);
    let features = pooled_features(&export, [2, 3, size, size], &images);
    (images, features)
}

/// Returns two images of `channels` channels; the first three do not depend on `channels`.
fn images(size: usize, channels: usize) -> Vec<f32> {
    let plane = size * size;
    (0..2)
        .flat_map(|image| (0..channels * plane).map(move |i| (image, i)))
        .map(|(image, i)| (((i + image * 31) * 7919 % 10_007) as f32 / 5003.0) - 1.0)
        .collect()
}

#[test]
fn widening_keeps_the_features_and_ignores_yellow() {
    for (arch, size) in NETWORKS {
        let export = random_export(arch, 7).unwrap();
        let side = size as usize;
        let (rgb, expected) = pooled_by_ort(&export, side);
        let device = Device::flex();
        let fresh = Classifier::new(&ModelConfig::new(arch, size), 0, &device);
        let pretrained = Pretrained::new(export).unwrap();
        assert_eq!(pretrained.arch().unwrap(), arch);
        let filters = [Filter::Red, Filter::Green, Filter::Blue, Filter::Zero];
        let (classifier, report) = pretrained.load(arch, &filters, fresh).unwrap();
        assert_eq!(report.widened.1[1], 4);

        // The same RGB with a yellow channel that is not zero.
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
        let features = classifier.features(Tensor::from_data(input, &device));
        let features: Vec<f32> = features.into_data().iter().collect();
        let difference = relative_difference(&features, &expected);
        assert!(difference <= 1e-4, "{}: {difference:e}", arch.name());
    }
}

#[test]
fn unfolding_keeps_the_features() {
    let mut export = random_export(Arch::ResNet50, 9).unwrap();
    fold_batch_norms(&mut export);
    let (rgb, expected) = pooled_by_ort(&export, 64);
    let device = Device::flex();
    let config = ModelConfig {
        channels: ["red", "green", "blue"].map(String::from).to_vec(),
        ..ModelConfig::new(Arch::ResNet50, 64)
    };
    let filters = [Filter::Red, Filter::Green, Filter::Blue];
    let fresh = Classifier::new(&config, 0, &device);
    let (classifier, report) = Pretrained::new(export)
        .unwrap()
        .load(Arch::ResNet50, &filters, fresh)
        .unwrap();
    assert_eq!(report.unfolded, 53);
    let input = TensorData::new(rgb, [2, 3, 64, 64]);
    let features = classifier.features(Tensor::from_data(input, &device));
    let features: Vec<f32> = features.into_data().iter().collect();
    let difference = relative_difference(&features, &expected);
    assert!(difference <= 1e-4, "{difference:e}");
}

/// Returns the float initializers by name.
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
fn converting_and_exporting_keeps_every_weight_bit_identical() {
    let dir = tempfile::tempdir().unwrap();
    for &arch in Arch::IMPORTED {
        let source = dir.path().join("source.onnx");
        write_model(&source, &random_export(arch, 3).unwrap());
        let name = arch.name();
        let done = |args: &str| must(dir.path(), args);
        // The network is detected from the file.
        done(&format!(
            "convert --onnx source.onnx --out {name} --stem mean"
        ));
        done(&format!(
            "export --engine tract --from {name} --out {name}.onnx"
        ));

        let exported = weights(&dir.path().join(format!("{name}.onnx")));
        let mut same = 0;
        for (name, before) in &weights(&source) {
            let Some(after) = exported.get(&format!("backbone.{name}")) else {
                continue;
            };
            if after.len() == before.len() {
                assert_eq!(bits(after), bits(before), "{name}");
                same += 1;
            } else {
                assert_eq!(after.len(), before.len() / 3 * 4, "{name}");
            }
        }
        assert_eq!(same, arch.imported().unwrap().weights.len() - 1);

        // An exported file becomes the checkpoint that it was exported from, including the head.
        done(&format!("convert --onnx {name}.onnx --out back"));
        done("export --engine tract --from back --out back.onnx");
        let back = weights(&dir.path().join("back.onnx"));
        assert_eq!(back.len(), exported.len());
        for (name, before) in &exported {
            assert_eq!(bits(&back[name]), bits(before), "{name}");
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn converts_for_other_stains_and_classes() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source.onnx");
    write_model(&source, &random_export(Arch::ResNet50, 4).unwrap());
    let names = "Class,Name\n1,healthy\n0,infected\n2,dead\n";
    fs::write(dir.path().join("classes.csv"), names).unwrap();
    let args = "convert --onnx source.onnx --out ckpt --channels dna,er,rna,agp,mito \
                --stem BGR0M --labels-from classes.csv --json";
    let report = json(dir.path(), args);
    assert_eq!(report["arch"], "resnet50");
    assert_eq!(report["matched"], 264);
    assert_eq!(report["widened"][1], serde_json::json!([64, 5, 7, 7]));
    assert_eq!(report["unfolded"], 0);
    assert_eq!(
        report["dropped"],
        serde_json::json!(["fc.weight", "fc.bias"])
    );
    assert_eq!(report["source_sha256"].as_str().unwrap().len(), 64);

    must(dir.path(), "export --engine tract --from ckpt --out m.onnx");
    let document = json(dir.path(), "inspect m.onnx --json");
    assert_eq!(
        document["spec"]["classes"],
        serde_json::json!(["infected", "healthy", "dead"])
    );
    assert_eq!(
        document["spec"]["preprocess"]["channels"],
        serde_json::json!(["dna", "er", "rna", "agp", "mito"])
    );
    // The filters of blue come first; those of the fourth channel are zero.
    let before = weights(&source);
    let after = weights(&dir.path().join("m.onnx"));
    let (before, after) = (&before["conv1.weight"], &after["backbone.conv1.weight"]);
    for (old, new) in before.chunks(3 * 49).zip(after.chunks(5 * 49)) {
        assert_eq!(new[..49], old[98..]);
        assert_eq!(new[98..147], old[..49]);
        assert!(new[147..196].iter().all(|&value| value == 0.0));
    }
}

#[test]
fn rejects_other_networks_and_damaged_files_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut other = random_export(Arch::ResNet50, 0).unwrap();
    fs::write(path.join("text.onnx"), "this is not an ONNX file").unwrap();
    write_model(&path.join("resnet.onnx"), &other);
    fs::write(path.join("file"), "").unwrap();
    // One convolution in the middle with another stride.
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
    write_model(&path.join("stride.onnx"), &other);
    // A weight that is shorter than its shape.
    let mut short = random_export(Arch::ResNet50, 0).unwrap();
    let tensor = &mut short.graph.mut_or_insert_default().initializer[5];
    tensor.raw_data = tensor.raw_data.slice(..8);
    let tensor = tensor.name.clone();
    write_model(&path.join("short.onnx"), &short);

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
                    "nearest known network is resnet50 (100%",
                ],
            ),
            (
                "convert --arch resnet50 --onnx stride.onnx --out x",
                &["stride.onnx", "strides [3, 3]", &name],
            ),
            (
                "convert --arch auto --onnx stride.onnx --out x",
                &["strides [3, 3]", &name, "nearest known network is resnet50"],
            ),
            (
                "convert --onnx resnet.onnx --out x --channels a,b --stem RGB",
                &["3 filters for 2 channels"],
            ),
            (
                "convert --onnx resnet.onnx --out x --labels-from text.onnx",
                &["text.onnx", "`Name`"],
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
                "convert --arch resnet --onnx resnet.onnx --out x",
                &["--arch", "auto, resnet50, resnet50-v1"],
            ),
            (
                "convert --arch baseline --onnx resnet.onnx --out x",
                &["baseline", "no pretrained"],
            ),
        ],
    );
}
