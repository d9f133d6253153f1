"""Row 30: steps whose learning no comparison of a prediction with a target describes; the audit must say so."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.batches import NUM_CLASSES, NUM_SAMPLES, pictures
from jepalab.audit.steps.case import Row, row
from jepalab.audit.steps.network_examples import DIM, ConvNet, adamw, mlp


@row(number=30, name="gan", verdict="unsupported", terms=None)
def gan(generator: torch.Generator) -> Row:
    """Whether a picture is real or made, asked by one player against the other: GAN.

    Both players in one step, each with its optimizer.
    """
    G, D = mlp(DIM, 20, 192, last=nn.Sigmoid()), nn.Sequential(nn.Flatten(), mlp(192, 20, 1))
    optimizer_g = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = nn.BCEWithLogitsLoss()

    def step(x: Tensor) -> dict[str, Tensor]:
        real, fake = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        z = torch.randn(len(x), DIM)
        generated = G(z).view_as(x)
        optimizer_d.zero_grad()
        d_loss = (criterion(D(x), real) + criterion(D(generated.detach()), fake)) / 2
        d_loss.backward()
        optimizer_d.step()
        optimizer_g.zero_grad()
        g_loss = criterion(D(generated), real)
        g_loss.backward()
        optimizer_g.step()
        return {"d_loss": d_loss.detach(), "loss": g_loss.detach()}

    return Row(step, {"x": pictures(generator)}, {"G": G, "D": D}, D, optimizer_d)


@row(number=30, name="wasserstein gan, critic's half", verdict="unsupported", terms=None)
def wasserstein_critic(generator: torch.Generator) -> Row:
    """A critic's score of real pictures, pushed above that of made ones: WGAN-GP."""
    G, critic = mlp(DIM, 20, 192), nn.Sequential(nn.Flatten(), mlp(192, 20, 1))

    def step(x: Tensor) -> Tensor:
        fake = G(torch.randn(len(x), DIM)).view_as(x).detach()
        alpha = torch.rand(len(x), 1, 1, 1)
        between = (alpha * x + (1 - alpha) * fake).requires_grad_(True)
        gradients = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
        penalty = ((gradients.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
        return critic(fake).mean() - critic(x).mean() + 10 * penalty

    return Row(step, {"x": pictures(generator)}, {"G": G, "critic": critic}, critic, adamw({"critic": critic}))


@row(number=30, name="reinforce", verdict="unsupported", terms=None)
def reinforce(generator: torch.Generator) -> Row:
    """No prediction: an action is made likelier if its reward is high: REINFORCE."""
    policy = mlp(7, 20, NUM_CLASSES)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)

    def step(batch: dict[str, Tensor]) -> Tensor:
        dist = torch.distributions.Categorical(logits=policy(batch["x"]))
        action = dist.sample()
        rewards = (action == batch["label"]).float()
        returns = (rewards - rewards.mean()) / (rewards.std() + 1e-8)
        policy_loss = (-dist.log_prob(action) * returns).sum()
        optimizer.zero_grad()
        policy_loss.backward()
        optimizer.step()
        return policy_loss

    best = torch.randint(0, NUM_CLASSES, (NUM_SAMPLES,), generator=generator)
    inputs = {"x": torch.randn(NUM_SAMPLES, 7, generator=generator), "label": best}
    return Row(step, inputs, {"policy": policy}, policy, optimizer)


@row(number=30, name="policy gradient on stored episodes", verdict="unsupported", terms=None)
def policy_gradient(generator: torch.Generator) -> Row:
    """No prediction: a stored action is made likelier if its reward was high: policy gradient.

    The actions and their rewards come with the batch, as from a replay of the last episodes.
    """
    policy = mlp(7, 20, NUM_CLASSES)

    def step(x: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        logp = torch.distributions.Categorical(logits=policy(x)).log_prob(action)
        return -(logp * (reward - reward.mean())).mean()

    inputs = {
        "x": torch.randn(NUM_SAMPLES, 7, generator=generator),
        "action": torch.randint(0, NUM_CLASSES, (NUM_SAMPLES,), generator=generator),
        "reward": torch.randn(NUM_SAMPLES, generator=generator),
    }
    return Row(step, inputs, {"policy": policy}, policy, adamw({"policy": policy}))


@row(number=30, name="energy with Langevin negatives", verdict="unsupported", terms=None)
def energy_based(generator: torch.Generator) -> Row:
    """The energy of pictures, pushed below that of samples drawn by Langevin steps: energy-based model."""
    energy = nn.Sequential(ConvNet(), nn.Linear(DIM, 1))
    optimizer = torch.optim.Adam(energy.parameters(), lr=1e-4)

    def langevin(num_samples: int) -> Tensor:
        x_k = torch.rand(num_samples, 3, 8, 8).requires_grad_()
        for _ in range(4):
            gradient = torch.autograd.grad(energy(x_k).sum(), [x_k], retain_graph=True)[0]
            x_k.data += -1.0 * gradient + 0.01 * torch.randn_like(x_k)
        return x_k.detach()

    def step(x: Tensor) -> Tensor:
        negatives = langevin(len(x))
        e_pos, e_neg = energy(x), energy(negatives)
        loss = (e_pos - e_neg).mean() + 0.1 * (e_pos**2 + e_neg**2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, {"x": pictures(generator)}, {"energy": energy}, energy, optimizer)


class GoodnessLayer(nn.Linear):
    """Learns alone: large activity on real pairs of picture and label, small on wrong ones."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(num_in, num_out)
        self.threshold = 2.0
        self.opt = torch.optim.Adam(self.parameters(), lr=0.03)

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override-param-name]
        x_direction = x / (x.norm(2, 1, keepdim=True) + 1e-4)
        return F.relu(torch.mm(x_direction, self.weight.T) + self.bias.unsqueeze(0))

    def train_pair(self, x_pos: Tensor, x_neg: Tensor) -> tuple[Tensor, Tensor, float]:
        g_pos = self.forward(x_pos).pow(2).mean(1)
        g_neg = self.forward(x_neg).pow(2).mean(1)
        loss = torch.log(1 + torch.exp(torch.cat([-g_pos + self.threshold, g_neg - self.threshold]))).mean()
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return self.forward(x_pos).detach(), self.forward(x_neg).detach(), loss.item()


def overlay_y_on_x(x: Tensor, y: Tensor) -> Tensor:
    """The label written into the first four pixels."""
    x_ = x.clone()
    x_[:, :NUM_CLASSES] *= 0.0
    x_[range(x.shape[0]), y] = x.max()
    return x_


@row(number=30, name="forward-forward", verdict="unsupported", terms=None)
def forward_forward(generator: torch.Generator) -> Row:
    """The activity of each layer, pushed up for a picture with its label, down for a wrong label: forward-forward."""
    layers = [GoodnessLayer(192, 20), GoodnessLayer(20, 14)]
    net = nn.ModuleList(layers)

    def step(x: Tensor, label: Tensor) -> float:
        flat = x.flatten(1)
        h_pos, h_neg = overlay_y_on_x(flat, label), overlay_y_on_x(flat, label[torch.randperm(len(label))])
        total = 0.0
        for layer in layers:
            h_pos, h_neg, loss = layer.train_pair(h_pos, h_neg)
            total += loss
        return total

    label = torch.randint(0, NUM_CLASSES, (NUM_SAMPLES,), generator=generator)
    return Row(step, {"x": pictures(generator), "label": label}, {"layers": net}, net, layers[0].opt)
