"""Print the study's JSON schema, workflow/schemas/study.schema.json: python -m hiddencost.study"""

import json

from hiddencost.study.study import Study

print(json.dumps(Study.model_json_schema(), indent=1))
