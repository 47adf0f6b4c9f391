import json
from dataclasses import replace

import pytest

from flexai.model import Grant, TenantClass
from flexai.node import Phase, Tenant
from flexai.wire import checkpoint
from flexai.wire.errors import BadInput

GRANT = Grant("7", 1, "node", "GPU-1", 300, 1000, 1 << 30, TenantClass.LATENCY, borrow_weight=7)
TENANT = Tenant("7", 1, "7.1.2", 1000, 100, (GRANT,), 2000, 1 << 20, Phase.RUNNING, 42, 99, paused=True)


def test_what_is_saved_is_read_again():
    tenants = [TENANT, replace(TENANT, job_id="8", phase=Phase.FINISHED, exit_code=3, cause="exited")]
    assert checkpoint.decode(checkpoint.encode(tenants, 1)) == tenants


def test_the_first_version_is_read_for_ever():
    row = {"job_id": "1", "member": 0, "token": "1.0.1", "uid": 0, "gid": 0, "grants": []}
    assert checkpoint.decode(json.dumps({"v": 1, "tenants": [row]}).encode()) == [Tenant("1", 0, "1.0.1", 0, 0, ())]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"v": 2, "tenants": []}', b'{"v":1,"tenants":[1]}', b'{"v":1,"tenants":[{}]}', b"[" * 9999],
)
def test_a_file_that_is_not_a_checkpoint_is_refused_with_a_remedy(data):
    with pytest.raises(BadInput) as error:
        checkpoint.decode(data)
    assert error.value.remedy
