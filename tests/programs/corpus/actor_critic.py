"""An actor-critic with generalised advantages on many grid worlds at once.

Each step yields the loss of a rollout and the mean cost of a move (a move costs 1 away from the
goal, nothing at it).
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

SIDE = 6


class GridWorlds:
    """Agents on grids with a goal each; whoever arrives is set down elsewhere."""

    def __init__(self, count):
        self.moves = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])
        self.goals = torch.randint(SIDE, (count, 2))
        self.agents = torch.randint(SIDE, (count, 2))

    def observe(self):
        return torch.cat([self.agents, self.goals], dim=1)

    def step(self, actions):
        self.agents = torch.clamp(self.agents + self.moves[actions], 0, SIDE - 1)
        arrived = torch.all(self.agents == self.goals, dim=1)
        elsewhere = torch.randint(SIDE, self.agents.shape)
        self.agents[arrived] = elsewhere[arrived]
        return arrived


class ActorCritic(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4 * SIDE, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.actor = nn.Linear(hidden, 4)
        self.critic = nn.Linear(hidden, 1)
        nn.init.zeros_(self.actor.weight)

    def forward(self, observation):
        places = F.one_hot(observation, SIDE).flatten(-2).to(self.actor.weight.dtype)
        features = self.body(places)
        return self.actor(features), self.critic(features).squeeze(-1)


def rollout(env, model, length):
    """Observations, actions and rewards (length, count), without gradients."""
    seen, done, paid = [], [], []
    with torch.no_grad():
        for _ in range(length):
            seen.append(env.observe())
            logits, _ = model(seen[-1])
            action = torch.multinomial(logits.softmax(-1), 1).squeeze(1)
            done.append(action)
            arrived = env.step(action)
            paid.append(torch.where(arrived, 1.0, -0.1))
        seen.append(env.observe())
    return torch.stack(seen), torch.stack(done), torch.stack(paid)


def advantages_of(rewards, values, gamma=0.95, lam=0.9):
    result = torch.zeros_like(rewards)
    last = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        arrived = rewards[t] > 0
        following = values[t + 1].masked_fill(arrived, 0.0)
        delta = rewards[t] + gamma * following - values[t]
        last = delta + gamma * lam * last * (~arrived)
        result[t] = last
    return result


def train(steps=120, count=64, length=8):
    env = GridWorlds(count)
    model = ActorCritic()
    optimizer = torch.optim.Adam([
        {"params": [*model.body.parameters(), *model.critic.parameters()], "lr": 4e-3},
        {"params": model.actor.parameters(), "lr": 8e-3},
    ])  # fmt: skip
    for _ in range(steps):
        observations, actions, rewards = rollout(env, model, length)
        logits, values = model(observations)
        log_probs = F.log_softmax(logits[:-1], dim=-1)
        with torch.no_grad():
            advantages = advantages_of(rewards, values)
            targets = advantages + values[:-1]
        chosen = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        policy_loss = -(chosen * (advantages - advantages.mean())).mean()
        value_loss = F.smooth_l1_loss(values[:-1], targets)
        entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
        loss = policy_loss + 0.5 * value_loss - 0.01 * entropy
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        yield loss.item(), (rewards < 0).double().mean().item()


if __name__ == "__main__":
    for step, (loss, cost) in enumerate(train()):
        print(step, loss, cost)
