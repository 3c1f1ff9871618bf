//! Tests of valid and invalid scores files.

use std::fs;

use super::*;

fn read(name: &str, bytes: &[u8], ids: Option<&[&str]>) -> Result<Scores, ScoresError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let ids = ids.map(|ids| ids.iter().map(ToString::to_string).collect());
    read_scores(&path, ids.map(|ids| (Path::new("ids.csv"), ids)), None)
}

fn error_for(name: &str, bytes: &[u8], ids: Option<&[&str]>) -> String {
    let error = read(name, bytes, ids).unwrap_err().to_string();
    assert!(error.contains(name), "{error}");
    error
}

/// A `.npy` file of version 1.
fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[test]
fn reads_scores_by_id() {
    let text = "Id,Nucleus,\"Golgi, cis\"\nb,0.5,1e-9\na,,\n";
    let read = read("s.csv", text.as_bytes(), None).unwrap();
    assert_eq!(read.classes, ["Nucleus", "Golgi, cis"]);
    assert_eq!(read.rows.len(), 2);
    assert_eq!(read.rows["b"], Some(vec![0.5, 1e-9]));
    assert_eq!((&read.rows["a"], read.note), (&None, None));
}

#[test]
fn table_errors_name_position_and_reason() {
    for (text, wanted) in [
        ("", "the header must be `Id`"),
        ("Id\na\n", "one column per class"),
        (",Id,x\n0,a,0.5\n", "the first column is ``"),
        ("Id,x\n", "has no rows"),
        ("Id,Target\na,0 1\n", "line 2: `0 1` in column `Target`"),
        ("Id,x\na,0.5\nb,1.5\n", "line 3: `1.5` in column `x`"),
        ("Id,x\na,-2\n", "apply the sigmoid"),
        ("Id,x\na,NaN\n", "`NaN`"),
        ("Id,x\na,inf\n", "`inf`"),
        ("Id,x,y\na,0.5,\n", "`` in column `y`"),
        ("Id,x\n,0.5\n", "line 2: the id is empty"),
        ("Id,x\na,0.5\na,0.5\n", "line 3: duplicate id `a`"),
        ("Id,x,x\na,0.5,0.5\n", "`x` exists twice"),
        ("Id,x\na,0.5,0.5\n", "3 fields"),
    ] {
        let error = error_for("s.csv", text.as_bytes(), None);
        assert!(error.contains(wanted), "{error}");
    }
    assert!(error_for("s.csv", b"Id,x\na,0.5\n", Some(&["a"])).contains("omit --ids"));
    assert!(read_scores(Path::new("/nowhere/s.csv"), None, None).is_err());
}

#[test]
fn columns_are_reordered_by_class() {
    let names = rgby_common::labels::hpa_classes();
    let table = |names: &[String]| {
        let values: Vec<_> = names.iter().map(|name| name.len().to_string()).collect();
        format!("Id,{}\na,0.{}\n", names.join(","), values.join(",0."))
    };
    let in_order = read("s.csv", table(&names).as_bytes(), None).unwrap();
    let mut reversed = names.clone();
    reversed.reverse();
    let reordered = read("s.csv", table(&reversed).as_bytes(), None).unwrap();
    assert_eq!(
        (&reordered.classes, &reordered.rows),
        (&names, &in_order.rows)
    );
    assert!(reordered.note.is_some() && in_order.note.is_none());

    let missing = error_for("s.csv", table(&names[1..]).as_bytes(), None);
    assert!(
        missing.contains("no column for class 0, `Nucleoplasm`"),
        "{missing}"
    );
    let mut renamed = names.clone();
    renamed[7] = "Golgi".into();
    let renamed = error_for("s.csv", table(&renamed).as_bytes(), None);
    assert!(renamed.contains("class 7, `Golgi apparatus`") && renamed.contains("`Golgi`)"));
    assert!(renamed.contains("--classes FILE"), "{renamed}");
    let mut more = names.clone();
    more.push("Other".into());
    assert!(error_for("s.csv", table(&more).as_bytes(), None).contains("column `Other`"));

    // As text, 10 sorts before 2.
    let read = read(
        "s.csv",
        b"Id,0,10,1,2,3,4,5,6,7,8,9\na,0,1,.1,.2,.3,.4,.5,.6,.7,.8,.9\n",
        None,
    );
    let read = read.unwrap();
    assert_eq!(read.rows["a"].as_ref().unwrap()[2..4], [0.2, 0.3]);
    assert_eq!(read.classes[10], "Class 10");
    assert!(error_for("s.csv", b"Id,0,2\na,0,1\n", None).contains("class 1"));
}

#[test]
fn given_class_names_determine_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.csv");
    let names = ["x", "y"].map(String::from);
    let with = |text: &str| {
        fs::write(&path, text).unwrap();
        read_scores(&path, None, Some(&names)).map_err(|e| e.to_string())
    };
    assert_eq!(
        with("Id,y,x\na,0,1\n").unwrap().rows["a"],
        Some(vec![1.0, 0.0])
    );
    assert_eq!(with("Id,1,0\na,0,1\n").unwrap().classes, names);
    assert!(with("Id,x\na,0\n").unwrap_err().contains("class 1, `y`"));
    assert!(with("Id,x,y,z\na,0,0,0\n").unwrap_err().contains("`z`"));
    assert!(with("Id,0,1,2\na,0,0,0\n").unwrap_err().contains("`2`"));
}

#[test]
fn reads_arrays_of_all_float_types_and_both_orders() {
    let ids: Option<&[&str]> = Some(&["a", "b"]);
    let values = [0.0, 0.25, 0.5, 1.0, 0.75, 0.125];
    let data = floats(&values);
    let rows = |bytes: &[u8]| {
        let read = read("s.npy", bytes, ids).unwrap();
        [
            read.rows["a"].clone().unwrap(),
            read.rows["b"].clone().unwrap(),
        ]
    };
    let wanted = [vec![0.0, 0.25, 0.5], vec![1.0, 0.75, 0.125]];
    assert_eq!(rows(&npy("'<f4'", "False", "(2, 3)", &data)), wanted);
    let doubles: Vec<u8> = values
        .iter()
        .flat_map(|v| f64::from(*v).to_le_bytes())
        .collect();
    assert_eq!(rows(&npy("'<f8'", "False", "(2, 3)", &doubles)), wanted);
    let halves = values
        .iter()
        .flat_map(|v| half::f16::from_f32(*v).to_le_bytes());
    assert_eq!(
        rows(&npy(
            "'<f2'",
            "False",
            "(2, 3)",
            &halves.collect::<Vec<_>>()
        )),
        wanted
    );
    let columns = floats(&[0.0, 1.0, 0.25, 0.75, 0.5, 0.125]);
    assert_eq!(rows(&npy("'<f4'", "True", "(2, 3)", &columns)), wanted);
}

#[test]
fn array_errors_name_the_reason() {
    let ids: Option<&[&str]> = Some(&["a", "b"]);
    let data = floats(&[0.5; 6]);
    let good = npy("'<f4'", "False", "(2, 3)", &data);
    let huge = "(18446744073709551615, 18446744073709551615)";
    let mut endless = good.clone();
    endless[8..10].copy_from_slice(&u16::MAX.to_le_bytes());
    let nan = floats(&[0.5, 0.5, 0.5, 0.5, f32::NAN, 0.5]);
    for (bytes, wanted) in [
        (b"PK\x03\x04".to_vec(), "is not a .npy file"),
        (vec![], "is not a .npy file"),
        (good[..7].to_vec(), "the header is truncated"),
        (good[..30].to_vec(), "the header is truncated"),
        (endless, "the header is truncated"),
        (
            good[..good.len() - 1].to_vec(),
            "24 bytes of values, but the file has 23",
        ),
        (npy("'<f4'", "False", "(3, 3)", &data), "describes 36 bytes"),
        (npy("'<f4'", "False", huge, &data), "but the file has 24"),
        (
            npy("'<i8'", "False", "(2, 3)", &data),
            "has the type `'<i8'`",
        ),
        (npy("'>f4'", "False", "(2, 3)", &data), "float16, 32 or 64"),
        (
            npy("[('a', '<f4')]", "False", "(2, 3)", &data),
            "has the type `[(",
        ),
        (npy("'<f4'", "False", "(6,)", &data), "shape [6]"),
        (
            npy("'<f4'", "False", "(1, 2, 3)", &data),
            "[samples, classes]",
        ),
        (npy("'<f4'", "False", "(2, 0)", &[]), "shape [2, 0]"),
        (npy("'<f4'", "False", "(2, -3)", &data), "no valid `shape`"),
        (
            npy("'<f4'", "Maybe", "(2, 3)", &data),
            "no valid `fortran_order`",
        ),
        (
            npy("'<f4'", "False", "(1, 6)", &data),
            "has 1 rows, but ids.csv has 2 ids",
        ),
        (
            npy("'<f4'", "False", "(2, 3)", &nan),
            "row 1: `NaN` in column `1`",
        ),
    ] {
        let error = error_for("s.npy", &bytes, ids);
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    assert!(error_for("s.npy", &good, None).contains("--ids"));
}

mod parquet_files {
    use std::sync::Arc;

    use ::parquet::arrow::ArrowWriter;
    use arrow_array::{ArrayRef, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray};

    use super::*;

    fn bytes(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns
                .into_iter()
                .map(|(name, column)| (name, column, true)),
        )
        .unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    fn ids() -> ArrayRef {
        Arc::new(StringArray::from(vec!["b", "a"]))
    }

    #[test]
    fn reads_tables_of_both_float_types() {
        let x: ArrayRef = Arc::new(Float32Array::from(vec![Some(0.5), None]));
        let y: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.25), None]));
        let read = read(
            "s.parquet",
            &bytes(vec![("Id", ids()), ("x", x), ("y", y)]),
            None,
        );
        let read = read.unwrap();
        assert_eq!(read.rows["b"], Some(vec![0.5, 0.25]));
        assert_eq!(read.rows["a"], None);
    }

    #[test]
    fn errors_name_column_and_reason() {
        let x = |values: Vec<Option<f32>>| -> ArrayRef { Arc::new(Float32Array::from(values)) };
        let whole = bytes(vec![("Id", ids()), ("x", x(vec![Some(0.5); 2]))]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 0]));
        let half = vec![
            ("Id", ids()),
            ("x", x(vec![Some(0.5), None])),
            ("y", x(vec![Some(0.5); 2])),
        ];
        for (bytes, wanted) in [
            (b"Id,x\na,0.5\n".to_vec(), "cannot be read as Parquet"),
            (
                whole[..whole.len() - 5].to_vec(),
                "cannot be read as Parquet",
            ),
            (bytes(vec![("x", ids())]), "the first column is `x`"),
            (
                bytes(vec![("Id", ids()), ("x", numbers.clone())]),
                "`x` has the type Int64",
            ),
            (
                bytes(vec![("Id", numbers), ("x", x(vec![None; 2]))]),
                "`Id` has the type Int64",
            ),
            (bytes(half), "row 1: `null` in column `x`"),
            (
                bytes(vec![("Id", ids()), ("x", x(vec![Some(0.5), Some(1.5)]))]),
                "row 1: `1.5` in column `x`",
            ),
        ] {
            let error = error_for("s.parquet", &bytes, None);
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    #[test]
    fn flipped_bytes_do_not_panic() {
        let x: ArrayRef = Arc::new(Float32Array::from(vec![0.5, 0.25]));
        let whole = bytes(vec![("Id", ids()), ("x", x)]);
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            refused += usize::from(read("s.parquet", &bytes, None).is_err());
        }
        assert!(refused > whole.len() / 4, "{refused} of {}", whole.len());
    }
}
