//! Schedules of CronJobs: in flow texts, out comes what is wrong with them, as
//! `github.com/robfig/cron/v3` (`parser.go`) says it.

use crate::testing::requests::gojson;

/// The fields: least, most, and the names from the least on.
const FIELDS: [(u64, u64, &str); 5] = [
    (0, 59, ""),
    (0, 23, ""),
    (1, 31, ""),
    (1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    (0, 6, "sun mon tue wed thu fri sat"),
];

pub(super) fn fault(text: &str) -> Option<String> {
    let zone = text
        .split_once(' ')
        .filter(|(zone, _)| zone.contains("TZ="));
    let plain = zone.map_or(text, |(_, rest)| rest.trim());
    let fault = match plain.strip_prefix("@every ") {
        Some(time) => {
            gojson::no_duration(time).map(|why| format!("failed to parse duration {plain}: {why}"))
        }
        None if plain.starts_with('@') => match plain {
            "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight"
            | "@hourly" => None,
            other => Some(format!("unrecognized descriptor: {other}")),
        },
        None => fields(plain).err(),
    };
    // `k8s.io/kubernetes/pkg/apis/batch/validation/validation.go`.
    let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
    fault.or(text.contains("TZ").then(|| why.to_owned()))
}

fn fields(text: &str) -> Result<(), String> {
    let fields: Vec<_> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let (count, fields) = (fields.len(), fields.join(" "));
        return Err(format!(
            "expected exactly 5 fields, found {count}: [{fields}]"
        ));
    }
    for (field, bounds) in fields.into_iter().zip(FIELDS) {
        let mut parts = field.split(',').filter(|part| !part.is_empty());
        parts.try_for_each(|part| range(part, bounds))?;
    }
    Ok(())
}

fn range(text: &str, (least, most, names): (u64, u64, &str)) -> Result<(), String> {
    let number = |text: &str| {
        let name = text.to_lowercase();
        if let Some(at) = names
            .split(' ')
            .position(|known| !name.is_empty() && known == name)
        {
            return Ok(least + at as u64);
        }
        text.parse::<u64>().map_err(|_| {
            let why = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
            format!("failed to parse int from {text}: {why}")
        })
    };
    let steps: Vec<_> = text.split('/').collect();
    let ends: Vec<_> = steps[0].split('-').collect();
    let (start, mut end) = match ends[..] {
        ["*" | "?", ..] => (least, most),
        [one] => (number(one)?, number(one)?),
        [start, end] => (number(start)?, number(end)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match steps[..] {
        [_] => 1,
        [_, step] => number(step)?,
        _ => return Err(format!("too many slashes: {text}")),
    };
    if ends.len() == 1 && steps.len() == 2 {
        end = most;
    }
    match () {
        () if start < least => Err(format!(
            "beginning of range ({start}) below minimum ({least}): {text}"
        )),
        () if end > most => Err(format!(
            "end of range ({end}) above maximum ({most}): {text}"
        )),
        () if start > end => Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        )),
        () if step == 0 => Err(format!("step of range should be a positive number: {text}")),
        () => Ok(()),
    }
}
