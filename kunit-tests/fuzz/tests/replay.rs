// SPDX-License-Identifier: GPL-2.0

//! Repeats the inputs that are kept: of each target those that reach most of its code, and those
//! that once found something. `corpus/TARGET.hex` has one in each line.

use std::path::Path;

fn unhex(line: &str) -> Vec<u8> {
    let digits = line.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

fn replay(name: &str) {
    let target = nullhz_fuzz::TARGETS.iter().find(|target| target.0 == name);
    let run = target.unwrap().1;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let text = std::fs::read_to_string(folder.join(name).with_extension("hex")).unwrap();
    let inputs: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(!inputs.is_empty());
    for input in inputs {
        // Which one it was, if it fails.
        println!("{input}");
        run(&unhex(input));
    }
}

macro_rules! replay {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn no_target_is_forgotten() {
            let names = [$(stringify!($name)),*];
            assert!(nullhz_fuzz::TARGETS.iter().map(|target| target.0).eq(names));
        }
    };
}

replay! {
    severity decode buckets predict record bus heartbeat ladder learning threads spans combine
    gather view arguments state
}
