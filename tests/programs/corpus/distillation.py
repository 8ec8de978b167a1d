"""Distillation (Hinton et al., 2015): a small student learns from a trained teacher.

Each step trains the teacher for a batch, and the student on what an average of the teacher says.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def spirals(count, arms=3):
    """Points on spiral arms, lifted into 16 dimensions, and their arms."""
    labels = torch.randint(arms, (count,))
    radius = torch.rand(count) * 0.9 + 0.1
    angle = 3.5 * radius + labels * (2 * torch.pi / arms) + 0.15 * torch.randn(count)
    points = radius.unsqueeze(1) * torch.stack((angle.cos(), angle.sin()), 1)
    lift = torch.randn(2, 16)
    return torch.sin(3 * points @ lift), labels


def mlp(*widths, norm=False):
    layers = []
    for a, b in zip(widths, widths[1:]):
        layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm else []), nn.Hardswish()]
    return nn.Sequential(*layers[:-1], nn.Linear(widths[-1], 3))


def distillation_loss(student_logits, teacher_logits, labels, T=3.0, alpha=0.7):
    soft = F.kl_div(
        F.log_softmax(student_logits / T, dim=1),
        F.softmax(teacher_logits / T, dim=1),
        reduction="batchmean",
    )
    return alpha * T * T * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def train(steps=120, batch=128):
    x, y = spirals(1024)
    teacher = mlp(16, 96, 96, 64, norm=True)
    average = AveragedModel(teacher, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    student = mlp(16, 24)
    teacher_optimizer = torch.optim.AdamW(teacher.parameters(), lr=2e-3)
    student_optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for step in range(steps):
        chosen = torch.randperm(len(x))[:batch]
        inputs, labels = x[chosen], y[chosen]
        teacher_loss = F.cross_entropy(teacher(inputs), labels)
        teacher_optimizer.zero_grad()
        teacher_loss.backward()
        teacher_optimizer.step()
        average.update_parameters(teacher)
        average.eval()
        with torch.no_grad():
            said = average(inputs)
        loss = distillation_loss(student(inputs), said, labels)
        student_optimizer.zero_grad()
        loss.backward()
        student_optimizer.step()
        if step % 40 == 39:
            right = (student(x).argmax(1) == y).sum().item() / len(x)
            print(f"step {step}: the student is right in {right:.1%}")
        yield teacher_loss.item(), loss.item()


if __name__ == "__main__":
    for step, found in enumerate(train()):
        print(step, *found)
