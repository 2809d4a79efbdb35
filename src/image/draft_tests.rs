use super::*;

fn member(content: &str, platform: &str) -> Member {
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{}","size":1}},"layers":[]}}"#,
        media_type::OCI_CONFIG,
        Digest::sha256(content)
    );
    let raw = RawManifest::new(text.into_bytes(), None).unwrap();
    Member::new(&raw, Some(MemberPlatform::from(&platform.parse::<Platform>().unwrap())))
}

#[test]
fn an_index_is_written_the_same_each_time_and_read_back() {
    let mut draft = IndexDraft::default();
    for (content, platform) in [("1", "linux/amd64"), ("2", "linux/arm/v6")] {
        assert!(draft.add(member(content, platform)).unwrap().is_none());
    }
    for key in ["z", "a", "m"] {
        draft.annotations.insert(key.into(), "1".into());
        draft.manifests[0].annotations.insert(key.into(), "2".into());
    }
    let raw = draft.to_raw().unwrap();
    assert_eq!(raw, draft.to_raw().unwrap());
    assert_eq!(raw.media_type, media_type::OCI_INDEX);
    let again = IndexDraft::parse(&raw).unwrap();
    assert_eq!(again, draft);
    assert_eq!(again.to_raw().unwrap().digest, raw.digest);
}

#[test]
fn what_is_not_known_is_kept() {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","x":[1],"manifests":[{{"mediaType":"{}","digest":"{}","size":3,"urls":["u"],
        "platform":{{"os":"windows","architecture":"amd64","os.version":"10.0.1","os.features":["win32k"],"y":2}}}}]}}"#,
        media_type::DOCKER_INDEX,
        media_type::DOCKER_MANIFEST,
        Digest::sha256("x")
    );
    let raw = RawManifest::new(text.into_bytes(), None).unwrap();
    let mut draft = IndexDraft::parse(&raw).unwrap();
    let change = Change { variant: Some("v2".into()), ..Change::default() };
    draft.annotate(&Digest::sha256("x"), &change).unwrap();
    let value: Value = serde_json::from_slice(&draft.to_raw().unwrap().bytes).unwrap();
    assert_eq!(value["x"], serde_json::json!([1]));
    assert_eq!(value["mediaType"], media_type::DOCKER_INDEX);
    let member = &value["manifests"][0];
    assert_eq!((&member["urls"][0], &member["platform"]["y"]), (&"u".into(), &2.into()));
    assert_eq!(member["platform"]["os.version"], "10.0.1");
    assert_eq!(member["platform"]["os.features"][0], "win32k");
    assert_eq!(member["platform"]["variant"], "v2");
}

#[test]
fn doubles_are_merged_or_told_and_an_index_in_an_index_is_refused() {
    let mut draft = IndexDraft::default();
    draft.add(member("1", "linux/amd64")).unwrap();
    let mut again = member("1", "linux/amd64");
    again.annotations.insert("k".into(), "v".into());
    assert!(draft.add(again).unwrap().is_none());
    assert_eq!((draft.members().len(), draft.members()[0].annotations["k"].as_str()), (1, "v"));
    let first = draft.add(member("2", "linux/amd64")).unwrap().map(|first| first.digest.clone());
    assert_eq!(first, Some(member("1", "linux/amd64").digest));
    let nested = Member::new(&IndexDraft::default().to_raw().unwrap(), None);
    assert!(matches!(draft.add(nested), Err(DraftError::Nested(_))));
}

#[test]
fn attestations_go_with_their_image() {
    let mut draft = IndexDraft::default();
    let image = member("1", "linux/amd64");
    let mut attestation = member("2", "unknown/unknown");
    attestation.annotations.insert(ATTESTS_ANNOTATION.into(), image.digest.to_string());
    assert!(image.runs() && !attestation.runs());
    draft.add(image.clone()).unwrap();
    draft.add(attestation).unwrap();
    draft.remove(&image.digest).unwrap();
    assert!(draft.members().is_empty());
    assert!(matches!(draft.remove(&image.digest), Err(DraftError::NoMember(_))));
}

#[test]
fn too_many_are_too_many() {
    let one = serde_json::to_value(member("1", "linux/amd64")).unwrap();
    let text = serde_json::json!({"schemaVersion": 2, "manifests": vec![one; MAX_MEMBERS + 1]});
    let raw = RawManifest::new(text.to_string().into_bytes(), None).unwrap();
    assert!(matches!(IndexDraft::parse(&raw), Err(DraftError::TooMany(1025))));
}

#[test]
fn docker_lists_hold_what_docker_knows() {
    let mut draft = IndexDraft::default();
    draft.add(member("1", "linux/amd64")).unwrap();
    let docker = draft.clone().into_docker().unwrap().to_raw().unwrap();
    assert_eq!(docker.media_type, media_type::DOCKER_INDEX);
    draft.annotations.insert("k".into(), "v".into());
    assert!(matches!(draft.into_docker(), Err(DraftError::NotInDocker(_))));
}
