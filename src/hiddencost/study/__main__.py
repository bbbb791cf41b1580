"""Print the study's JSON schema, workflow/schemas/study.schema.json: python -m hiddencost.study

With files of studies behind it, say of each whether it is one, and what is wrong in it.
"""

import json
import sys

from hiddencost import yaml_file
from hiddencost.messages import StudyError
from hiddencost.study.load import load_study
from hiddencost.study.study import Study

if not sys.argv[1:]:
    print(json.dumps(Study.model_json_schema(), indent=1))
for file in sys.argv[1:]:
    try:
        print(f"{file}: the study {load_study(yaml_file.read(file), file).study}")
    except StudyError as error:
        sys.exit(str(error))
