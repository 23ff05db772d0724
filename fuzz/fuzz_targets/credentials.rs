//! What an exec plugin prints and what an OpenID Connect provider answers is a credential, or an
//! error that does not repeat it. The first byte chooses whose answer it is.
#![no_main]

use kubewire::auth::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, answer)) = data.split_first() else {
        return;
    };
    let outcome = match choice % 3 {
        0 => fuzzing::exec_credential(answer),
        1 => fuzzing::id_token(answer),
        _ => fuzzing::token_response(answer, choice & 4 != 0),
    };
    if let Err(error) = outcome {
        let said = error.to_string();
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
        assert!(said.len() < 4096);
    }
});
