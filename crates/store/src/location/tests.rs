use super::*;

fn parse(text: &str) -> Result<Location, LocationError> {
    Location::parse(OsStr::new(text))
}

#[test]
fn text_without_a_scheme_is_a_path() {
    for text in [
        "plates", "/a/b", "./s3://b", "s3:/b", "C:\\x", "a b/ü%", "://x", "3s://x", "",
    ] {
        assert_eq!(parse(text), Ok(Location::Local(text.into())), "{text}");
    }
    let file = |text| parse(text).unwrap().local().unwrap().to_owned();
    assert_eq!(file("file:///a/b%20c+d"), Path::new("/a/b c+d"));
    assert_eq!(file("FILE://localhost/a%25"), Path::new("/a%"));
}

#[cfg(unix)]
#[test]
fn paths_need_not_be_utf8() {
    let path: OsString = std::os::unix::ffi::OsStringExt::from_vec(b"s3://\xff".to_vec());
    assert_eq!(Location::parse(&path), Ok(Location::Local(path.into())));
}

#[test]
fn errors_name_what_is_wrong() {
    for (text, wanted) in [
        ("ftp://host/x", "./ftp://"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("az://", "names no container"),
        ("https:///x", "names no server"),
        ("file://other/x", "file:///path"),
        ("file:///a%2", "percent-encoded"),
        ("http://h/%ff", "percent-encoded"),
        ("s3://b/a//c", "segment ``"),
        ("s3://b/../c", "segment `..`"),
        ("http://h/%2e%2e/c", "segment `..`"),
        ("s3://b/a\nb", "control"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn errors_contain_no_password() {
    for text in [
        "s3://AKIA:hunter2@bucket/x",
        "s3://a/hunter2@bucket",
        "gs://hunter2@b",
        "ftp://u:hunter2@h/x?sig=hunter2",
        "http://u:hunter2@/x",
        "az:///x?sig=hunter2",
        "http://u:hunter2@h/%zz?hunter2",
    ] {
        if let Err(error) = parse(text) {
            assert!(!error.to_string().contains("hunter2"), "{text}: {error}");
            assert!(
                !format!("{error:?}").contains("hunter2"),
                "{text}: {error:?}"
            );
        }
    }
}

#[cfg(not(feature = "remote"))]
#[test]
fn a_build_without_stores_names_the_feature() {
    let error = parse("s3://bucket/x").unwrap_err().to_string();
    assert!(error.contains("feature `remote`"), "{error}");
}

#[cfg(feature = "remote")]
mod remote {
    use super::*;

    fn url(text: &str) -> Url {
        match parse(text).unwrap() {
            Location::Remote(url) => url,
            Location::Local(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn urls_have_bucket_and_key() {
        for (text, host, key) in [
            ("s3://bucket", "bucket", ""),
            ("s3://bucket/", "bucket", ""),
            ("S3://bucket/plates/p 1/", "bucket", "plates/p 1"),
            // Keys of stores are not percent-encoded.
            ("gs://b/a%20b+c?d#e", "b", "a%20b+c?d#e"),
            ("az://c/k", "c", "k"),
            ("https://h:8080/a%20b+c#there", "h:8080", "a b+c"),
        ] {
            let url = url(text);
            assert_eq!((url.host(), url.key()), (host, key), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        for text in [
            "https://user:hunter2@host/model.onnx",
            "https://host/model.onnx?X-Amz-Signature=hunter2",
            "az://container/plates?sv=1&sig=hunter2",
        ] {
            let location = parse(text).unwrap();
            let json = serde_json::to_string(&location).unwrap();
            let shown = format!("{location} {location:?} {json} {:?}", location.named());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(url("http://u:p@h/a%20b?x").to_string(), "http://h/a b");
    }

    #[test]
    fn parents_and_children() {
        let out = url("s3://b/runs/out.csv");
        assert_eq!(out.file_name(), "out.csv");
        assert_eq!(out.parent().folder(), "s3://b/runs/");
        assert_eq!(url("s3://b/x").parent().folder(), "s3://b/");
        assert_eq!(url("s3://b").join("a").key(), "a");
        assert_eq!(url("s3://b/p/").join("a_red.png").key(), "p/a_red.png");
    }
}
