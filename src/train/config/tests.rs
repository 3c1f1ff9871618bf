//! Reading, completing and rejecting configs.

use super::*;

const TEXT: &str = "\
    model = { arch = 'resnet50', input_size = 64 }\n\
    train = { epochs = 2, batch_size = 4 }\n\
    optimizer = { name = 'adadelta', constants = 'keras-2.0.8' }\n";

fn parse(overrides: &[&str]) -> Result<Config, String> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Config::parse("run.toml", TEXT, &overrides).map_err(|error| error.to_string())
}

#[test]
fn writes_all_defaults() {
    let config = parse(&[]).unwrap();
    assert_eq!(config.optimizer.lr, Some(1.0));
    assert_eq!(config.optimizer.rho, Some(0.95));
    assert_eq!(config.optimizer.epsilon, Some(1e-8));
    assert_eq!(config.data.mean, [0.5; 4]);
    assert_eq!(config.model.classes.len(), 28);
    // A resumed run reads what the run wrote.
    let text = toml::to_string_pretty(&config).unwrap();
    assert_eq!(Config::parse("config.toml", &text, &[]).unwrap(), config);
}

#[test]
fn writes_the_settings_of_the_loss() {
    let config = parse(&["train.loss=focal", "train.class_weights=balanced"]).unwrap();
    assert_eq!(config.train.loss().focal_gamma, Some(2.0));
    let text = toml::to_string_pretty(&config).unwrap();
    assert!(text.contains("class_weights = \"balanced\""), "{text}");
    assert_eq!(Config::parse("config.toml", &text, &[]).unwrap(), config);
    assert_eq!(parse(&[]).unwrap().train.loss(), LossConfig::default());
}

#[test]
fn overrides_accept_numbers_lists_and_bare_words() {
    let config = parse(&[
        "train.epochs=7",
        "model.hidden=[32, 16]",
        "data.split=random:0.2",
        "optimizer.constants=pytorch",
    ])
    .unwrap();
    assert_eq!(config.train.epochs, 7);
    assert_eq!(config.model.hidden, [32, 16]);
    assert_eq!(config.data.split.to_string(), "random:0.2");
    assert_eq!(config.optimizer.rho, Some(0.9));
}

#[test]
fn errors_name_the_key_and_the_value() {
    for (item, expected) in [
        ("train.epoch=3", "did you mean train.epochs?"),
        ("trains.epochs=3", "did you mean train?"),
        (
            "optimizer.name=adamm",
            "did you mean optimizer.name = \"adam\"?",
        ),
        ("train.epochs=0", "train.epochs is 0"),
        ("train.epochs=many", "many"),
        ("train.loss=hinge", "hinge"),
        (
            "train.label_smoothing=-0.1",
            "train.label_smoothing is -0.1",
        ),
        (
            "train.class_weights=[1, 2]",
            "train.class_weights has 2 numbers for 28",
        ),
        ("train.class_weights=equal", "one number for each class"),
        (
            "train.focal_gamma=2",
            "train.focal_gamma applies only to the loss focal",
        ),
        ("optimizer.name=lion", "lion"),
        (
            "optimizer.beta1=0.9",
            "optimizer.beta1 applies only to adam and adamw",
        ),
        (
            "optimizer.momentum=0.9",
            "optimizer.momentum applies only to sgd",
        ),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay is -1"),
        ("optimizer.schedule=linear", "linear"),
        (
            "optimizer.min_lr=0.1",
            "optimizer.min_lr applies only to schedule cosine",
        ),
        (
            "optimizer.step_epochs=3",
            "optimizer.step_epochs applies only to schedule step",
        ),
        ("optimizer.rho=1.0", "optimizer.rho"),
        ("optimizer.lr=-1", "optimizer.lr"),
        (
            "model.input_size=16",
            "model.input_size is 16; resnet50 takes 32",
        ),
        ("model.channels=[]", "model.channels"),
        ("model.dropout=1.0", "model.dropout"),
        ("data.mean=[0.1, 0.2]", "data.mean has 2 values for 4"),
        ("data.split=fifth-fold", "fifth-fold"),
        ("nothing", "--set nothing"),
        ("alone=1", "--set alone=1"),
    ] {
        let error = parse(&[item]).unwrap_err();
        assert!(error.contains(expected), "{item}: {error}");
    }
}

#[test]
fn errors_name_the_override_that_caused_them() {
    let error = parse(&["train.epochs=3", "model.size=64"]).unwrap_err();
    assert!(
        error.starts_with("--set model.size=64: unknown field `size`"),
        "{error}"
    );
    assert!(error.ends_with("did you mean model.input_size?"), "{error}");
    // Of two wrong overrides, the one that the message is about.
    let error = parse(&["train.steps=4", "model.size=64"]).unwrap_err();
    assert!(error.starts_with("--set model.size=64: "), "{error}");
    let error = parse(&["train.epochs=0", "train.seed=1"]).unwrap_err();
    assert!(error.starts_with("--set train.epochs=0: "), "{error}");
    // Of two contradicting overrides, the last one.
    let error = parse(&[
        "optimizer.schedule=cosine",
        "optimizer.lr=1",
        "optimizer.min_lr=2",
    ]);
    let error = error.unwrap_err();
    assert!(error.starts_with("--set optimizer.min_lr=2: "), "{error}");
    // An error in the list or table of an override.
    let error = parse(&["train.stages=[{ epochs = 1, frozen = [] }]"]).unwrap_err();
    assert!(error.starts_with("--set train.stages=[{ "), "{error}");
    let error = parse(&["model.channels=['red']", "data.mean=[0.1, 0.2]"]).unwrap_err();
    assert!(error.starts_with("--set data.mean=[0.1, 0.2]: "), "{error}");
    let wrong = TEXT.replace("train =", "trains =");
    // A value of the file that contradicts an override.
    let error = parse(&["model.arch=inception-resnet-v2"]).unwrap_err();
    assert!(error.starts_with("--set model.arch="), "{error}");
    let fine = ["train.epochs=3".to_owned()];
    let error = Config::parse("run.toml", &wrong, &fine).unwrap_err();
    assert!(error.to_string().starts_with("run.toml: "), "{error}");
}

#[test]
fn errors_name_keys_that_contradict_each_other() {
    for (items, expected) in [
        (
            vec!["optimizer.schedule=cosine", "optimizer.min_lr=2"],
            "at most optimizer.lr, 1",
        ),
        (
            vec!["optimizer.schedule=step", "optimizer.step_epochs=0"],
            "step_epochs is 0",
        ),
    ] {
        let error = parse(&items).unwrap_err();
        assert!(error.contains(expected), "{items:?}: {error}");
    }
    let text = TEXT.replace(
        "name = 'adadelta', constants = 'keras-2.0.8'",
        "name = 'NAME'",
    );
    let with = |name: &str, items: &[&str]| {
        let overrides: Vec<String> = items.iter().map(ToString::to_string).collect();
        let parsed = Config::parse("run.toml", &text.replace("NAME", name), &overrides);
        parsed.map_err(|error| error.to_string())
    };
    for (name, item, expected) in [
        (
            "sgd",
            "optimizer.nesterov=true",
            "requires optimizer.momentum above 0",
        ),
        (
            "sgd",
            "optimizer.epsilon=1",
            "applies only to adadelta, adam and adamw",
        ),
        ("adamw", "optimizer.constants=keras-2.0.8", "has no adamw"),
    ] {
        let error = with(name, &[item]).unwrap_err();
        assert!(error.contains(expected), "{item}: {error}");
    }
    let config = with("sgd", &["optimizer.schedule=step"]).unwrap().optimizer;
    assert_eq!(
        (config.step_epochs, config.step_factor),
        (Some(30), Some(0.1))
    );
    assert_eq!((config.momentum, config.nesterov), (Some(0.0), Some(false)));
}

#[test]
fn all_configs_of_the_repository_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        Config::read(&entry.unwrap().path(), &[]).unwrap();
        count += 1;
    }
    assert!(count >= 9, "{count} configs");
}

#[test]
fn an_unknown_key_is_reported_with_its_line_and_a_similar_key() {
    let text = TEXT.replace("batch_size", "batchsize");
    let error = Config::parse("run.toml", &text, &[])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("run.toml: TOML parse error at line 2"),
        "{error}"
    );
    assert!(error.ends_with("did you mean train.batch_size?"), "{error}");
    // A key without a similar one gets no hint.
    let text = TEXT.replace("epochs", "duration");
    let error = Config::parse("run.toml", &text, &[])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`epochs`") && !error.contains("did you mean"),
        "{error}"
    );
}

#[test]
fn clipping_averaging_and_accumulation_are_off_by_default() {
    let train = parse(&[]).unwrap().train;
    assert_eq!(
        (train.clip_norm, train.ema, train.accumulate),
        (None, None, 1)
    );
    let train = parse(&["train.clip_norm=1", "train.ema=0.999", "train.accumulate=4"]);
    let train = train.unwrap().train;
    assert_eq!(
        (train.clip_norm, train.ema, train.accumulate),
        (Some(1.0), Some(0.999), 4)
    );
}

#[test]
fn stages_cover_consecutive_epochs() {
    let config = parse(&[
        "train.epochs=5",
        "train.stages=[{ epochs = 2, freeze = ['backbone'], lr = 1e-3 }, { epochs = 1 }]",
    ])
    .unwrap();
    let firsts: Vec<_> = (0..5).map(|epoch| config.train.stage(epoch).0).collect();
    assert_eq!(firsts, [0, 0, 2, 3, 3]);
    let (_, frozen) = config.train.stage(1);
    assert_eq!((frozen.freeze.len(), frozen.lr), (1, Some(1e-3)));
    let (_, rest) = config.train.stage(4);
    assert_eq!((rest.epochs, rest.freeze.len(), rest.lr), (2, 0, None));
}
