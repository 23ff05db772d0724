//! usage: surface RUSTDOC_JSON

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let json = std::env::args_os()
        .nth(1)
        .ok_or("the JSON of rustdoc is not named")?;
    let surface = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    print!("{surface}");
    Ok(())
}
