"""A delta network at work: how thresholds trade exactness for skipped updates, on a slowly changing signal."""

import torch

from deltarnn import DeltaGRU, record_activity


def main() -> None:
    torch.manual_seed(0)
    signal = torch.randn(500, 1, 16).cumsum(0) * 0.05
    dense = torch.nn.GRU(16, 64)
    expected, _ = dense(signal)
    print("threshold   updates skipped   difference from nn.GRU (RMS)")
    for threshold in (0.0, 0.05, 0.1, 0.2, 0.4):
        layer = DeltaGRU(16, 64, thx=threshold, thh=threshold)
        layer.load_state_dict(dense.state_dict())
        with torch.no_grad(), record_activity(layer) as activity:
            output, _ = layer(signal)
        difference = (output - expected).square().mean().sqrt().item()
        print(f"{threshold:9.2f} {activity.sparsity:17.1%} {difference:30.4f}")


if __name__ == "__main__":
    main()
