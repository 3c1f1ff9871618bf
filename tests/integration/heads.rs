//! Trains, exports and re-imports heads of all kinds, with different numbers of channels.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use burn_store::{ModuleSnapshot, bridge};
use rgby::export::{ExportMetadata, TOLERANCE, to_onnx};
use rgby::imaging::Preprocess;
use rgby::model::{Arch, Classifier, Exported, ModelConfig};
use rgby::model_metadata::{ModelSpec, Precision, Provenance};

use crate::onnx_support::run_model;

const IMAGES: usize = 2;

/// Returns a `[model]` table: network and input size, then `keys`.
fn config(arch: Arch, size: u32, keys: &str) -> ModelConfig {
    let text = format!(
        "arch = '{}'\ninput_size = {size}\nclasses = ['dead', 'infected', 'healthy']\n{keys}",
        arch.name()
    );
    let config: ModelConfig = toml::from_str(&text).unwrap();
    config.resolved().unwrap()
}

fn spec(config: &ModelConfig) -> ModelSpec {
    ModelSpec {
        arch: config.arch.name().into(),
        classes: config.classes.clone(),
        thresholds: vec![0.5; config.classes.len()],
        preprocess: Preprocess::new(&config.channels, config.input_size),
        provenance: Provenance::default(),
        precision: Precision::Fp32,
        embeddings: None,
    }
}

fn shape(config: &ModelConfig) -> [usize; 4] {
    let side = config.input_size as usize;
    [IMAGES, config.channels.len(), side, side]
}

fn images(config: &ModelConfig) -> Vec<f32> {
    let count = shape(config).iter().product();
    let value = |i: usize| ((i * 7919 % 10_007) as f32 / 5003.0) - 1.0;
    (0..count).map(value).collect()
}

/// Returns a network after two training steps, so that no tensor has its initial values.
fn trained(config: &ModelConfig) -> Classifier {
    let device = Device::flex().autodiff();
    let mut classifier = Classifier::new(config, 5, &device);
    let mut optimizer = AdamConfig::new().init();
    for _ in 0..2 {
        let input = TensorData::new(images(config), shape(config));
        let logits = classifier.logits(Tensor::from_data(input, &device));
        let loss = (logits - 1.0).powi_scalar(2).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &classifier);
        classifier = optimizer.step(1e-3, classifier, gradients);
    }
    classifier.valid()
}

fn bits(classifier: &Classifier) -> BTreeMap<String, Vec<u32>> {
    let tensors = classifier.collect(None, None, true);
    let bits = tensors.iter().map(|tensor| {
        let data = bridge::to_data(tensor).unwrap();
        let bits = data.iter::<f32>().map(f32::to_bits).collect();
        (tensor.name.clone(), bits)
    });
    bits.collect()
}

/// Exports a trained network and asserts that the serving engine agrees with Burn.
fn export(config: &ModelConfig) -> (Classifier, rgby::graph::ModelProto) {
    let classifier = trained(config);
    let input = TensorData::new(images(config), shape(config));
    let expected = classifier.probabilities(Tensor::from_data(input, &Device::flex()));
    let expected: Vec<f32> = expected.into_data().iter().collect();
    let spec = spec(config);
    let description = ExportMetadata {
        config,
        spec: &spec,
    };
    let model = to_onnx(&classifier.clone(), &description).unwrap();
    let (output, served) = run_model(&model, shape(config), &images(config));
    assert_eq!(output, [IMAGES, config.classes.len()]);
    for (burn, served) in expected.iter().zip(&served) {
        assert!((burn - served).abs() <= TOLERANCE, "{burn} {served}");
    }
    (classifier, model)
}

#[test]
fn heads_survive_export_and_import_bit_identically() {
    let average_max = "pooling = 'average-max'\nhidden = [8]\nhidden_dropout = 0.5";
    let pretrained = "input_norm = true\nprojection = 12\npooling = 'flatten'\ndropout = 0.25\n\
                      hidden = [16]\nhidden_dropout = 0.25";
    let retrained = "input_norm = true\nprojection = 12\npooling = 'flatten'\ndropout = 0.25\n\
                     hidden = [16, 8, 8]\nhidden_dropout = [0, 0.25, 0.25]";
    for (arch, size, keys) in [
        (Arch::Baseline, 16, "hidden = [8]"),
        (Arch::Plain, 24, "hidden = [8, 8]\nhidden_dropout = 0.5"),
        (Arch::Plain, 16, "pooling = 'average'\nprojection = 4"),
        (Arch::ResNet50, 64, average_max),
        (Arch::ResNet50, 64, retrained),
        (Arch::InceptionResNetV2, 107, pretrained),
    ] {
        let config = config(arch, size, keys);
        let (classifier, model) = export(&config);
        let exported = Exported::new(model).unwrap();
        assert_eq!(exported.config, config);
        let (before, after) = (bits(&classifier), bits(&exported.load().unwrap()));
        assert!(before == after, "{keys}");
    }
}

#[test]
fn exports_three_and_five_channels() {
    for channels in ["['red', 'green', 'blue']", "['a', 'b', 'c', 'd', 'e']"] {
        let config = config(Arch::ResNet50, 64, &format!("channels = {channels}"));
        export(&config);
    }
}
