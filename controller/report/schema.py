"""The published JSON schema of `experiments/<name>/meta.json`: the model's own, with what the folder adds."""

from __future__ import annotations

from typing import Any

from controller.model.experiment import Experiment

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def experiment_schema() -> dict[str, Any]:
    """JSON Schema 2020-12. `name` may be left out, since the folder says it; `$schema` may point to this."""
    schema = Experiment.model_json_schema()
    schema["required"] = [field for field in schema["required"] if field != "name"]
    schema["properties"] = {"$schema": {"type": "string"}} | schema["properties"]
    return {"$schema": DIALECT, "title": "Ratchet experiment"} | {
        key: value for key, value in schema.items() if key != "title"
    }
