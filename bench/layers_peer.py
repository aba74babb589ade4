#!/usr/bin/env python3
"""The peer of bench_lora_step for a decoder folder: transformers and PEFT on one repeated batch; prints one JSON line.

    bench_lora_step --layers gptj --save-dir D            # two full-width layers, and an adapter
    lora_step.py --ours build/bench/bench_lora_step --peer "python bench/layers_peer.py" --model-dir D/model --adapter-dir D/adapter --dtypes fp32
"""
import argparse
import json
import time

START = time.perf_counter()


def tokens(count, vocab):
    """splitmix64 of i, squared to favour small ids: as bench_lora_step makes them."""
    mask, out = (1 << 64) - 1, []
    for i in range(count):
        z = (i + 1) * 0x9E3779B97F4A7C15 & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        u = (z ^ z >> 31) >> 40
        out.append(5 + ((u * u >> 24) * (vocab - 5) >> 24))
    return out


def memory_mb():
    with open("/proc/self/status") as lines:
        rows = dict(line.split(":", 1) for line in lines)
    return {key: round(int(rows[key].split()[0]) / 1024) for key in ("VmHWM", "VmRSS", "RssAnon")}


def probe_gflops(torch):
    a = torch.randn(1024, 1024)
    best = 0.0
    for _ in range(10):
        begin = time.perf_counter()
        a @ a
        best = max(best, 2 * 1024**3 / (time.perf_counter() - begin) / 1e9)
    return round(best, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-dir", required=True)
    parser.add_argument("--adapter-dir", required=True)
    parser.add_argument("--dtype", choices=("fp32", "medium", "bf16"), default="fp32")
    for name, default in (("batch", 4), ("seq", 128), ("warmup", 2), ("repeats", 5)):
        parser.add_argument("--" + name, type=int, default=default)
    args = parser.parse_args()

    import peft
    import torch
    import transformers
    torch.set_num_threads(1)
    if args.dtype == "medium":
        torch.set_float32_matmul_precision("medium")
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    base = transformers.AutoModelForCausalLM.from_pretrained(args.model_dir, dtype=dtype)
    model = peft.PeftModel.from_pretrained(base, args.adapter_dir, is_trainable=True)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    ids = torch.tensor(tokens(args.batch * args.seq, base.config.vocab_size)).view(args.batch, args.seq)
    ready, probe = time.perf_counter() - START, [probe_gflops(torch)]
    steps, losses = [], []
    for _ in range(args.warmup + args.repeats):
        begin = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 6))
        steps.append(round(1e3 * (time.perf_counter() - begin), 2))
    probe.append(probe_gflops(torch))
    print(json.dumps({"peer": "torch+peft", "dtype": args.dtype, "tokens": args.batch * args.seq, "trainable": sum(p.numel() for p in trained), "steps": steps, "losses": losses,
                      "ready_s": round(ready, 2), "memory_mb": memory_mb(), "probe_gflops": probe,
                      "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}}))


if __name__ == "__main__":
    main()
