//! Output files and ids.

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type};

use super::*;

fn table() -> ScoreTable {
    ScoreTable {
        ids: ["b", "a,\"1\"", "c"].map(String::from).to_vec(),
        probabilities: vec![Some(vec![0.5, 0.1, 0.9]), None, Some(vec![0.4, 1e-9, 0.3])],
        failures: vec![Failure {
            id: "a,\"1\"".into(),
            file: "x/a_red.png".into(),
            error: "two\nlines".into(),
        }],
    }
}

/// The table in two pieces.
fn tables() -> impl Iterator<Item = io::Result<ScoreTable>> {
    let mut first = table();
    let mut second = table();
    first.ids.truncate(1);
    first.probabilities.truncate(1);
    second.ids.remove(0);
    second.probabilities.remove(0);
    [Ok(first), Ok(second)].into_iter()
}

fn classes() -> Vec<String> {
    ["Nucleus", "Golgi, cis", "ER"].map(String::from).to_vec()
}

#[test]
fn predictions_scores_and_errors_are_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.csv");
    write_predictions(&out, &mut tables(), &[0.5, 0.5, 0.5]).unwrap();
    let text = fs::read_to_string(&out).unwrap();
    assert_eq!(text, "Id,Predicted\nb,0 2\n\"a,\"\"1\"\"\",\nc,\n");

    write_scores(&out, &mut tables(), &classes()).unwrap();
    let text = fs::read_to_string(&out).unwrap();
    let wanted =
        "Id,Nucleus,\"Golgi, cis\",ER\nb,0.5,0.1,0.9\n\"a,\"\"1\"\"\",,,\nc,0.4,0.000000001,0.3\n";
    assert_eq!(text, wanted);

    let errors = errors_path(&out);
    assert_eq!(errors, dir.path().join("out.errors.csv"));
    write_errors(&errors, &table().failures).unwrap();
    let text = fs::read_to_string(&errors).unwrap();
    assert_eq!(
        text,
        "Id,File,Error\n\"a,\"\"1\"\"\",x/a_red.png,\"two\nlines\"\n"
    );
    write_errors(&errors, &[]).unwrap();
    assert!(!errors.exists());
    write_errors(&errors, &[]).unwrap();
}

#[test]
fn scores_parse_back_to_the_same_floats() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("scores.csv");
    let mut table = table();
    let hard = vec![f32::MIN_POSITIVE, 0.1 + 0.2, 1.0 - f32::EPSILON / 2.0];
    table.probabilities[0] = Some(hard.clone());
    write_scores(&out, &mut [Ok(table)].into_iter(), &classes()).unwrap();
    let mut reader = csv::Reader::from_path(&out).unwrap();
    let row = reader.records().next().unwrap().unwrap();
    let read: Vec<f32> = row
        .iter()
        .skip(1)
        .map(|cell| cell.parse().unwrap())
        .collect();
    assert_eq!(read, hard);
    let back = read_scores(&out, 0..3).unwrap();
    assert_eq!(back.ids, ["b", "a,\"1\"", "c"]);
    assert_eq!(back.probabilities[0], Some(hard.clone()));
    assert_eq!(back.probabilities[1], None);
    let back = read_scores(&out, 1..3).unwrap();
    assert_eq!(back.probabilities[0], Some(hard[1..].to_vec()));
    assert_eq!(back.probabilities[1], None);
}

#[test]
fn parquet_and_csv_have_the_same_content() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.Parquet");
    write_predictions(&out, &mut tables(), &[0.5; 3]).unwrap();
    let batches = read_parquet(&out);
    let shown: Vec<String> = batches
        .iter()
        .flat_map(|batch| {
            let ids = batch.column(0).as_string::<i32>();
            let lists = batch.column(1).as_list::<i32>();
            ids.iter().zip(lists.iter()).map(|(id, list)| {
                let list = list.unwrap();
                let classes = list.as_primitive::<Int32Type>().values().to_vec();
                format!("{} {classes:?}", id.unwrap())
            })
        })
        .collect();
    assert_eq!(shown, ["b [0, 2]", "a,\"1\" []", "c []"]);

    write_scores(&out, &mut tables(), &classes()).unwrap();
    let batches = read_parquet(&out);
    let schema = batches[0].schema();
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(names, ["Id", "Nucleus", "Golgi, cis", "ER"]);
    let last: Vec<Option<f32>> = batches
        .iter()
        .flat_map(|batch| batch.column(3).as_primitive::<Float32Type>().iter())
        .collect();
    assert_eq!(last, [Some(0.9), None, Some(0.3)]);
}

fn read_parquet(path: &Path) -> Vec<RecordBatch> {
    let file = fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    reader.build().unwrap().map(Result::unwrap).collect()
}

#[test]
fn parquet_is_identical_for_all_table_sizes() {
    let dir = tempfile::tempdir().unwrap();
    // More rows than a group has.
    let row = |id: usize| (id % 100 != 7).then(|| vec![id as f32, 0.5, 1.0 / id as f32]);
    let whole = |rows: std::ops::Range<usize>| ScoreTable {
        ids: rows.clone().map(|id| format!("{id}")).collect(),
        probabilities: rows.map(row).collect(),
        failures: Vec::new(),
    };
    let written = |name: &str, size: usize| {
        let path = dir.path().join(name);
        let starts = (0..9000).step_by(size);
        let mut tables = starts.map(|start| Ok(whole(start..9000.min(start + size))));
        write_scores(&path, &mut tables, &classes()).unwrap();
        fs::read(path).unwrap()
    };
    let expected = written("a.parquet", 9000);
    assert!(written("b.parquet", 4096) == expected);
    assert!(written("c.parquet", 701) == expected);
}

#[test]
fn an_error_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["out.csv", "out.parquet"] {
        let out = dir.path().join(name);
        let mut broken = [Ok(table()), Err(io::Error::other("part 2 is damaged"))].into_iter();
        let error = write_scores(&out, &mut broken, &classes()).unwrap_err();
        assert!(error.to_string().contains("part 2 is damaged"), "{error}");
        assert!(!out.exists());
    }
    let error = write_scores(dir.path(), &mut tables(), &classes()).unwrap_err();
    let folder = dir.path().to_str().unwrap();
    assert!(error.to_string().contains(folder), "{error}");
    let error = write_errors(dir.path(), &[]).unwrap_err();
    assert!(error.to_string().contains("cannot remove"), "{error}");
}

#[test]
fn error_lists_are_beside_the_output() {
    for (output, errors) in [
        ("a/out.csv", "a/out.errors.csv"),
        ("out.v2.CSV", "out.v2.errors.csv"),
        ("out.parquet", "out.errors.csv"),
        ("out.v2", "out.v2.errors.csv"),
        ("out", "out.errors.csv"),
    ] {
        assert_eq!(errors_path(Path::new(output)), Path::new(errors));
    }
}

#[test]
fn ids_are_the_first_column_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ids.csv");
    let read = |text: &str| {
        fs::write(&file, text).unwrap();
        read_ids(&file).map_err(|e| e.to_string())
    };
    assert_eq!(
        read("\u{feff}Id,Predicted\r\nz,0 1\r\n\"a b\"\r\ny,\r\n").unwrap(),
        ["z", "a b", "y"]
    );
    for (text, wanted) in [
        ("", "no ids"),
        ("Id\n", "no ids"),
        ("Id\na\nb\na\n", "line 4: the id `a`"),
        ("Id,P\na,1\n,2\n", "line 3 has no id"),
    ] {
        let error = read(text).unwrap_err();
        assert!(
            error.contains(wanted) && error.contains("ids.csv"),
            "{error}"
        );
    }
    fs::write(&file, b"Id\n\xff\xfe\n").unwrap();
    assert!(read_ids(&file).unwrap_err().to_string().contains("UTF-8"));
    assert!(read_ids(&dir.path().join("none.csv")).is_err());
}

#[test]
fn ids_without_images_become_samples_without_files() {
    let sample = |id: &str| Sample {
        id: id.into(),
        channels: ["red".to_owned()].into(),
        files: vec![Some(format!("{id}_red.png").into())],
        picks: [].into(),
    };
    let ids = ["c", "x", "a"].map(String::from);
    let selected = select(vec![sample("a"), sample("b"), sample("c")], &ids);
    assert_eq!(selected[0], sample("c"));
    assert_eq!((selected[1].id.as_str(), selected[1].files.len()), ("x", 0));
    assert_eq!(selected[2], sample("a"));
}
