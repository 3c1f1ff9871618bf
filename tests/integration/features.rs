//! Training a head on cached features equals training with the frozen backbone.

use std::fs;
use std::path::Path;

use crate::support::{must, records, run};
use crate::train_support::{DATA, assert_same, stop_early, workplace};

/// Three epochs with everything but the head frozen, then one with nothing frozen.
const STAGED: &str = "train --config baseline.toml --set data.split=random:0.25 \
     --set train.epochs=4 --set train.batch_size=8 --set train.ema=0.9 \
     --set model.hidden_dropout=0.25 --set data.augment.dihedral=true";
/// A head on pooled features, and one on the whole feature map.
const HEADS: [&str; 2] = [
    "--set model.arch=plain --set model.pooling=average-max \
     --set train.stages=[{epochs=3,freeze=['backbone']},{epochs=1,freeze=[]}]",
    "--set model.arch=plain --set model.projection=4 --set model.pooling=flatten \
     --set model.input_norm=true \
     --set train.stages=[{epochs=3,freeze=['backbone','input_norm']},{epochs=1,freeze=[]}]",
];

fn losses(dir: &Path, run: &str) -> Vec<[f64; 2]> {
    let rows = records(dir, &format!("{run}/metrics.csv"));
    let number = |text: &String| text.parse::<f64>().unwrap();
    rows.iter()
        .map(|row| [number(&row[1]), number(&row[2])])
        .collect()
}

#[test]
fn cached_features_give_the_same_losses() {
    // So few samples that eight symmetries of each are fewer than three epochs.
    let dir = workplace(24, "0,25");
    let path = dir.path();
    for (number, head) in HEADS.iter().enumerate() {
        let staged = format!("{STAGED} {head} {DATA} --set train.steps_per_epoch=12");
        let (fast, slow) = (format!("fast{number}"), format!("slow{number}"));
        let shown = must(path, &format!("{staged} --out {fast}"));
        let said = "18 training samples × 8 variants, 6 validation samples";
        assert!(shown.stderr.contains(said), "{}", shown.stderr);
        let off = must(path, &format!("{staged} --feature-cache off --out {slow}"));
        assert!(!off.stderr.contains("frozen backbone"), "{}", off.stderr);
        let pairs = losses(path, &fast).into_iter().zip(losses(path, &slow));
        assert_eq!(pairs.len(), 4);
        for (epoch, (fast, slow)) in pairs.enumerate() {
            // In the last epoch the backbone trains too, which amplifies rounding.
            let tolerance = if epoch < 3 { 1e-4 } else { 1e-2 };
            for (fast, slow) in fast.iter().zip(slow) {
                let gap = (fast - slow).abs();
                assert!(
                    gap <= tolerance * slow,
                    "{head}, epoch {epoch}: {fast} {slow}"
                );
            }
        }
        assert!(
            shown.stderr.contains("computed the features in "),
            "{}",
            shown.stderr
        );
        // The cache is deleted with the stage that needs it.
        assert!(!path.join(&fast).join("features").exists());

        let parts = format!("parts{number}");
        stop_early(path, &format!("{staged} --out {parts}"), &parts);
        must(path, &format!("{staged} --out {parts} --resume"));
        assert_same(path, &fast, &parts);
    }
}

#[test]
fn runs_share_features_unless_they_augment_more() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let staged = format!(
        "{STAGED} {} {DATA} --set train.steps_per_epoch=12",
        HEADS[0]
    );
    let shared = format!("{staged} --feature-cache shared");
    must(path, &format!("{shared} --out first"));
    // Another head on the same backbone.
    let second = must(
        path,
        &format!("{shared} --set model.hidden=[8] --out second"),
    );
    assert!(
        second
            .stderr
            .contains("using the cached features of the frozen backbone in"),
        "{}",
        second.stderr
    );
    assert_eq!(fs::read_dir(path.join("shared")).unwrap().count(), 1);
    // Another backbone.
    must(path, &format!("{shared} --set train.seed=9 --out third"));
    let files: Vec<_> = fs::read_dir(path.join("shared")).unwrap().collect();
    assert_eq!(files.len(), 2);
    let crop = must(
        path,
        &format!("{shared} --set data.augment.crop=0.8 --out crop"),
    );
    assert!(!crop.stderr.contains("frozen backbone"), "{}", crop.stderr);

    // A damaged cache is rejected.
    for file in files {
        let file = file.unwrap().path();
        let mut bytes = fs::read(&file).unwrap();
        bytes[100] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    let damaged = run(path, &format!("{shared} --out fourth"));
    assert_eq!(damaged.code, Some(2), "{damaged:?}");
    assert!(
        damaged.stderr.contains("is damaged; remove the file"),
        "{damaged:?}"
    );
}

#[test]
fn feature_device_is_used_as_requested_or_is_an_error() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let staged = format!(
        "{STAGED} {} {DATA} --set train.steps_per_epoch=12",
        HEADS[0]
    );
    let burn = must(path, &format!("{staged} --feature-device burn --out burn"));
    let said = "computing the features of the frozen backbone once with Burn";
    assert!(burn.stderr.contains(said), "{}", burn.stderr);
    must(path, &format!("{staged} --feature-device auto --out auto"));
    for (burn, auto) in losses(path, "burn")
        .iter()
        .zip(losses(path, "auto"))
        .take(3)
    {
        for (burn, auto) in burn.iter().zip(auto) {
            assert!((burn - auto).abs() <= 1e-4 * burn, "{burn} {auto}");
        }
    }
    // No machine has a GPU of this index.
    let missing = run(
        path,
        &format!("{staged} --feature-device cuda:97 --out missing"),
    );
    assert_eq!(missing.code, Some(2), "{missing:?}");
    assert!(
        missing.stderr.contains("--feature-device cuda:97: "),
        "{missing:?}"
    );
}
