"""JSON of answers and log lines."""

import json

from cv_factory.serving.json_encoder import encode_json


def test_values_are_encoded_compactly_also_names_that_are_no_unicode() -> None:
    assert encode_json({"label": "é", "p": [0.1, 1e-06, None, True]}) == (
        '{"label":"é","p":[0.1,1e-6,null,true]}'.encode()
    )
    name = b"caf\xe9".decode(errors="surrogateescape")
    assert json.loads(encode_json({"label": name})) == {"label": name}
