"""REINFORCE (Williams, 1992) on a pole on a cart; each step is an episode.

It yields the policy's loss and how far the running length is from the longest.
"""

import math
from collections import deque

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.distributions import Categorical

LONGEST = 60


class CartPole:
    """The equations of Barto, Sutton and Anderson, with steps of 0.02 seconds."""

    def reset(self):
        self.state = (torch.rand(4) * 0.1 - 0.05).tolist()
        self.count = 0
        return self.state

    def step(self, action):
        x, v, angle, spin = self.state
        force = 10.0 if action == 1 else -10.0
        push = (force + 0.05 * spin**2 * math.sin(angle)) / 1.1
        pull = 9.8 * math.sin(angle) - math.cos(angle) * push
        turning = pull / (0.5 * (4.0 / 3.0 - 0.1 * math.cos(angle) ** 2 / 1.1))
        moving = push - 0.05 * turning * math.cos(angle) / 1.1
        self.state = (x + 0.02 * v, v + 0.02 * moving, angle + 0.02 * spin, spin + 0.02 * turning)
        self.count += 1
        fallen = abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.21
        return self.state, 1.0, fallen or self.count == LONGEST


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(4, 64)
        self.dropout = nn.Dropout(p=0.1)
        self.affine2 = nn.Linear(64, 2)
        self.saved_log_probs = []
        self.rewards = []

    def forward(self, x):
        x = F.relu(self.dropout(self.affine1(x)))
        return F.softmax(self.affine2(x), dim=1)


def select_action(policy, state):
    state = torch.tensor(state, dtype=torch.float32).unsqueeze(0)
    m = Categorical(policy(state))
    action = m.sample()
    policy.saved_log_probs.append(m.log_prob(action))
    return action.item()


def finish_episode(policy, optimizer, gamma=0.97):
    R = 0
    returns = deque()
    for r in policy.rewards[::-1]:
        R = r + gamma * R
        returns.appendleft(R)
    returns = torch.tensor(list(returns))
    returns = (returns - returns.mean()) / (returns.std() + 1e-6)
    policy_loss = []
    for log_prob, R in zip(policy.saved_log_probs, returns):
        policy_loss.append(-log_prob * R)
    optimizer.zero_grad()
    policy_loss = torch.cat(policy_loss).sum()
    policy_loss.backward()
    optimizer.step()
    del policy.rewards[:]
    del policy.saved_log_probs[:]
    return policy_loss.item()


def train(episodes=120):
    env = CartPole()
    policy = Policy()
    optimizer = optim.Adam(policy.parameters(), lr=2e-2)
    running = 10.0
    for _ in range(episodes):
        state, done = env.reset(), False
        while not done:
            state, reward, done = env.step(select_action(policy, state))
            policy.rewards.append(reward)
        running = 0.1 * env.count + 0.9 * running
        yield finish_episode(policy, optimizer), LONGEST - running


if __name__ == "__main__":
    for episode, (loss, missing) in enumerate(train()):
        print(episode, loss, LONGEST - missing)
