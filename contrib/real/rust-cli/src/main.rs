fn square(n: u64, buffer: &mut itoa::Buffer) -> String {
    buffer.format(n * n).to_owned()
}

fn main() {
    let mut buffer = itoa::Buffer::new();
    for n in std::env::args().skip(1).filter_map(|arg| arg.parse().ok()) {
        println!("{}", square(n, &mut buffer));
    }
}

#[test]
fn squares() {
    assert_eq!(square(12, &mut itoa::Buffer::new()), "144");
}
